"""The shop's paths, and those of the app `imgo_client.django` below `imgo/`."""

from django.contrib.auth.views import LoginView, LogoutView
from django.urls import include, path
from orders import views
from rest_framework.routers import DefaultRouter

router = DefaultRouter()
router.register("orders", views.OrderViewSet, basename="order")
router.register("notifications", views.NotificationViewSet, basename="notification")

urlpatterns = [
    path("", views.home, name="home"),
    path("api/", include(router.urls)),
    path("signin/", LoginView.as_view(), name="login"),
    path("signout/", LogoutView.as_view(), name="logout"),
    path("imgo/", include("imgo_client.django.urls")),
]
