"""Check of URLs of the user's backend."""

from urllib.parse import urlsplit


def can_be_called(url: str) -> bool:
    """Return whether this is an http or https URL with a host, and without user and password."""
    try:
        parts = urlsplit(url)
        is_usable = parts.scheme in ("http", "https") and bool(parts.hostname)
        return is_usable and parts.port != 0 and parts.username is None
    except ValueError:
        return False
