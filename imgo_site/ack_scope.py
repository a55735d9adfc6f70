"""Acknowledgement scopes of keys, from the setting `ACK_SCOPE`.

`ACK_SCOPE` maps patterns to scopes, and the first pattern that matches a key decides. A key that no
pattern matches has the scope `any`.
"""

from collections.abc import Iterable, Iterator
from functools import lru_cache

from imgo_site.conf import conf
from imgo_site.errors import BadRequest
from imgo_site.names import check_name, matches_pattern
from imgo_site.setting_values import shown

ANY = "any"  # the first session of a key that acknowledges a message settles it
EACH = "each"  # every device of a key has its own copy to acknowledge
SCOPES = (ANY, EACH)
CACHED = 10_000  # keys whose scope is remembered


def is_each(key: str) -> bool:
    """Return whether every device of a key acknowledges its messages for itself."""
    return bool(conf.ACK_SCOPE) and _scope(tuple(conf.ACK_SCOPE.items()), key) == EACH


def each_of(keys: Iterable[str]) -> list[str]:
    """Return those of these keys whose scope is `each`, every key once."""
    return list(dict.fromkeys(filter(is_each, keys))) if conf.ACK_SCOPE else []


@lru_cache(maxsize=CACHED)
def _scope(scopes: tuple[tuple[str, str], ...], key: str) -> str:
    return next((scope for pattern, scope in scopes if matches_pattern(pattern, key)), ANY)


def problems(pattern: object, scope: object) -> Iterator[tuple[str, str]]:
    """Yield (problem, hint) for each mistake in one entry of `ACK_SCOPE`."""
    try:
        check_name(pattern, "pattern")
    except BadRequest as error:
        yield (
            f"is wrong: {error.message.rstrip('.')}",
            'Name a key, or a pattern such as "user-*".',
        )
    if scope not in SCOPES:
        yield f"is {shown(scope)}, which is no scope", f"It is one of: {', '.join(SCOPES)}."
