"""The shop's paths, and those that all examples have."""

from django.urls import include, path

from examples.orders import views

urlpatterns = [
    path("orders/", views.orders, name="orders"),
    path("orders/list", views.listed, name="orders-list"),
    path("orders/next", views.advance, name="orders-next"),
    path("", include("examples.shared.urls")),
]
