"""The path of Server-Sent Events."""

from imgo_site.prefix import without_prefix
from push.api.problems import EVENTS_PATH


def is_for_events(method: str, path: str) -> bool:
    """Return whether a request opens a stream of events. `path`: unquoted, without the query."""
    return method == "GET" and without_prefix(path).rstrip("/") == EVENTS_PATH
