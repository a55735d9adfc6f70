"""The path prefix under which imgo is served: Django's setting `FORCE_SCRIPT_NAME`.

A proxy may keep the prefix in the path that it forwards, or strip it. Both work: the prefix is
removed from a path that begins with it, and any other path is used unchanged.
"""

from typing import Any

from django.conf import settings
from django.http import HttpRequest


def prefix() -> str:
    """Return the prefix without a trailing slash; "" if imgo is served at the root."""
    return str(settings.FORCE_SCRIPT_NAME or "").rstrip("/")


def without_prefix(path: str) -> str:
    """Return the path below the prefix, whether the proxy has kept the prefix or not."""
    start = prefix()
    if start and (path == start or path.startswith(f"{start}/")):
        return path[len(start) :] or "/"
    return path


def place(request: HttpRequest) -> None:
    """Correct the request's paths. Django itself supports only proxies that strip the prefix."""
    start: Any = prefix()
    if start:
        scope: dict[str, Any] | None = getattr(request, "scope", None)
        request.path_info = without_prefix(request.path_info if scope is None else scope["path"])
        request.path = start + request.path_info
