"""Decorator for checks that need readable settings."""

from collections.abc import Callable, Iterator
from typing import Any

from django.core.checks import CheckMessage
from django.core.exceptions import ImproperlyConfigured

from imgo_site.conf import load

Check = Callable[..., list[CheckMessage]]


def with_settings(find: Callable[[], Iterator[CheckMessage]]) -> Check:
    """Return a check that is silent if a setting has the wrong type, which `imgo.E002` reports."""

    def check(**_: Any) -> list[CheckMessage]:
        try:
            load()
        except ImproperlyConfigured:
            return []
        return list(find())

    # Not functools.wraps, because Django would inspect the signature of `find`.
    check.__name__, check.__doc__ = find.__name__, find.__doc__
    return check
