"""The path below which imgo is served: `FORCE_SCRIPT_NAME` of the settings.

A proxy may keep it in front of the path that it passes on, or strip it. Both work: a path that
begins with it loses it, and any other is taken as it is.
"""

from typing import Any

from django.conf import settings
from django.http import HttpRequest


def prefix() -> str:
    """Return the path, without a slash at its end; "" when imgo is served at the root."""
    return str(settings.FORCE_SCRIPT_NAME or "").rstrip("/")


def without_prefix(path: str) -> str:
    """Return the path below the prefix, whether the proxy has kept the prefix or not."""
    found = prefix()
    if found and (path == found or path.startswith(f"{found}/")):
        return path[len(found) :] or "/"
    return path


def place(request: HttpRequest) -> None:
    """Correct the request's paths. Django itself knows of stripping proxies only."""
    found: Any = prefix()
    if found:
        scope: dict[str, Any] | None = getattr(request, "scope", None)
        request.path_info = without_prefix(request.path_info if scope is None else scope["path"])
        request.path = found + request.path_info
