"""What the shop's API shows and takes."""

from rest_framework import serializers

from orders.models import Notification, Order


class OrderSerializer(serializers.ModelSerializer):
    """An order; callers choose only the article."""

    customer = serializers.CharField(source="customer.username", read_only=True)
    label = serializers.CharField(source="get_status_display", read_only=True)

    class Meta:
        model = Order
        fields = ("id", "article", "customer", "status", "label")
        read_only_fields = ("status",)


class StatusSerializer(serializers.Serializer):
    """The status that the caller has seen: two clicks are one step."""

    status = serializers.IntegerField()


class NotificationSerializer(serializers.ModelSerializer):
    """Notification of a user, as the page lists it."""

    class Meta:
        model = Notification
        fields = ("id", "text", "is_read")
