"""What the checks of values begin with: settings that can be read."""

from collections.abc import Callable, Iterator
from typing import Any

from django.core.checks import CheckMessage
from django.core.exceptions import ImproperlyConfigured

from imgo_site.conf import load

Check = Callable[..., list[CheckMessage]]


def with_settings(find: Callable[[], Iterator[CheckMessage]]) -> Check:
    """A check that is silent while a setting has the wrong type: `imgo.E002` tells that."""

    def check(**_: Any) -> list[CheckMessage]:
        try:
            load()
        except ImproperlyConfigured:
            return []
        return list(find())

    # Not functools.wraps: Django looks at the signature, and would see that of `find`.
    check.__name__, check.__doc__ = find.__name__, find.__doc__
    return check
