"""Limits of request bodies by method and path, which are known before a body is read.

imgo's view classes name the setting of their limit in `body_setting`. A path without a view, or a
method that the view lacks, has a limit of a few kilobytes.
"""

from django.urls import Resolver404, ResolverMatch, resolve

from imgo_site.conf import conf
from imgo_site.prefix import without_prefix

WITHOUT_BODY = frozenset({"GET", "HEAD", "OPTIONS", "DELETE", "TRACE", "CONNECT"})


def find_view(path: str) -> ResolverMatch | None:
    """Return the view of an unquoted path without its query; None if there is none."""
    try:
        return resolve(without_prefix(path))
    except Resolver404:
        return None


def body_limit(method: str, match: ResolverMatch | None) -> int:
    """Return the limit of a request's body, in bytes."""
    if match is None or method in WITHOUT_BODY:
        return conf.MAX_STRAY_BODY
    view = view_class(match)
    if view is not None and not hasattr(view, method.lower()):
        return conf.MAX_STRAY_BODY
    limit: int = getattr(conf, getattr(view, "body_setting", "MAX_FORM"))
    return limit


def view_class(match: ResolverMatch) -> type | None:
    """Return the class of a class-based view, Django's or DRF's; None for a function."""
    view: type | None = getattr(match.func, "view_class", None) or getattr(match.func, "cls", None)
    return view
