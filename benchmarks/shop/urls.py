"""A view that writes an order, and one that also pushes to its customer."""

from django.db import transaction
from django.http import HttpRequest, JsonResponse
from django.urls import path

from benchmarks.shop.models import Order
from imgo_client.django import push_to_key


@transaction.atomic
def plain(request: HttpRequest) -> JsonResponse:  # noqa: ARG001
    order = Order.objects.create(customer="alice")
    return JsonResponse({"order": order.pk})


@transaction.atomic
def pushing(request: HttpRequest) -> JsonResponse:  # noqa: ARG001
    order = Order.objects.create(customer="alice")
    push_to_key("alice", {"order": order.pk, "status": "placed"}, ttl=3600)
    return JsonResponse({"order": order.pk})


urlpatterns = [path("plain", plain), path("pushing", pushing)]
