"""Environment variables as the types that the settings need."""

import os

from django.core.exceptions import ImproperlyConfigured


def flag(name: str, default: bool = False) -> bool:
    """Return the environment variable `name` as a boolean. Raises `ImproperlyConfigured`."""
    value = os.environ.get(name, "").strip().lower()
    if value in {"1", "true", "yes", "on"}:
        return True
    if value in {"0", "false", "no", "off"}:
        return False
    if not value:
        return default
    raise ImproperlyConfigured(f"{name}={value!r}: say 1 or 0.")


def seconds(name: str, default: int) -> int:
    """Return the environment variable `name` as seconds. Raises `ImproperlyConfigured`."""
    value = os.environ.get(name, "").strip()
    if value and not value.isdecimal():
        raise ImproperlyConfigured(f"{name}={value!r}: say a number of seconds.")
    return int(value or default)


def at_least(lowest: int, name: str, default: int) -> int:
    """Return the environment variable `name` as a whole number of `lowest` or more.

    Raises `ImproperlyConfigured`.
    """
    value = os.environ.get(name, "").strip() or str(default)
    if not value.isdecimal() or int(value) < lowest:
        raise ImproperlyConfigured(f"{name}={value!r}: say a whole number of {lowest} or more.")
    return int(value)


def items(name: str, default: str = "") -> list[str]:
    """Return the items of the environment variable `name`, which are separated by commas."""
    return [item.strip() for item in os.environ.get(name, default).split(",") if item.strip()]
