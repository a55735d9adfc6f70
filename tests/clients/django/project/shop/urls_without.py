"""URLs that lack those of the app."""

urlpatterns = []
