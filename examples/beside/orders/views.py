"""The page, and the API that its script uses."""

from typing import Any

from django.contrib.auth.decorators import login_required
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from rest_framework import mixins, viewsets
from rest_framework.decorators import action
from rest_framework.permissions import IsAdminUser
from rest_framework.request import Request
from rest_framework.response import Response

from orders import serializers, tasks
from orders.models import Notification, Order
from orders.rooms import rooms_of


@login_required
def home(request: HttpRequest) -> HttpResponse:
    """Orders and notifications of the user; for the desk everyone's orders."""
    return render(request, "orders/home.html", {"rooms": rooms_of(request.user)})


class OrderViewSet(mixins.CreateModelMixin, mixins.ListModelMixin, viewsets.GenericViewSet):
    """Orders: customers place them, the desk advances them."""

    serializer_class = serializers.OrderSerializer

    def get_queryset(self) -> QuerySet[Order]:
        """Return the user's own orders, the newest first; for the desk everyone's."""
        found = Order.objects.select_related("customer").order_by("-pk")
        return found if self.request.user.is_staff else found.filter(customer=self.request.user)

    def perform_create(self, serializer: serializers.OrderSerializer) -> None:
        """Store the order, and have it packed by a task."""
        order = serializer.save(customer=self.request.user)
        tasks.pack.delay_on_commit(order.pk)

    @action(detail=True, methods=["post"], permission_classes=[IsAdminUser])
    def advance(self, request: Request, **_: Any) -> Response:
        """Take one step, unless somebody else has taken it; return the order as it is now."""
        asked = serializers.StatusSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        order = self.get_object()
        order.advance(asked.validated_data["status"])
        order.refresh_from_db()
        return Response(self.get_serializer(order).data)


class NotificationViewSet(mixins.ListModelMixin, viewsets.GenericViewSet):
    """The user's own notifications, the newest first."""

    serializer_class = serializers.NotificationSerializer

    def get_queryset(self) -> QuerySet[Notification]:
        """Return the user's."""
        return Notification.objects.filter(user=self.request.user).order_by("-pk")
