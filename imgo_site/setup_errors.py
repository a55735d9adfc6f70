"""Texts for errors that a project's settings cause before anything is served.

Django and its apps import what settings name. A wrong name raises an error somewhere in their code,
whose traceback does not show the setting.
"""

from collections.abc import Iterator
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured


def describe(error: Exception) -> str:
    """Return one line about an error that occurred while the project was set up or checked."""
    if isinstance(error, ImproperlyConfigured):
        return str(error)
    cause = f": {error.__cause__}" if error.__cause__ else ""
    text = " ".join(f"{type(error).__name__}: {error}{cause}".split())
    named = _settings_that_name(error.name) if isinstance(error, ImportError) else ""
    return f"{named or 'the project cannot be set up'}: {text}"


def _settings_that_name(module: str | None) -> str:
    """Return "NAME='path'" of each setting with a dotted path into a module, "" if there is none.

    `module`: full name of the module that could not be imported.
    """
    if not module:
        return ""
    try:
        relative_paths = [
            f"{name} has {path!r}"
            for name in sorted(set(dir(settings)))  # `settings.configure` makes names occur twice
            if name.isupper()
            for path in _texts(getattr(settings, name))
            if path == module or path.startswith(f"{module}.")
        ]
    except Exception:  # noqa: BLE001 - the settings themselves may be what cannot be read
        return ""
    return ", ".join(relative_paths)


def _texts(value: Any) -> Iterator[str]:
    """Yield each text in a setting."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from _texts(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _texts(part)
