"""The HTTP paths of the site."""

from django.contrib import admin
from django.urls import include, path

from imgo_site import site_admin

site_admin.register()

urlpatterns = [
    path("admin/", admin.site.urls),
    path("", include("push.urls")),
]

handler400 = "push.api.problems.bad_request"
handler404 = "push.api.problems.not_found"
handler500 = "push.api.problems.server_error"
