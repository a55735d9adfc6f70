"""URLs of a project that does not serve imgo's."""

urlpatterns: list[object] = []
