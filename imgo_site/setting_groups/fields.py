"""How a setting is declared: its default, and the text for the settings table."""

from dataclasses import field
from typing import Any


def setting(default: Any, help_text: str, items: type = str) -> Any:
    """Return a dataclass field with its text for the settings table.

    `items`: type of a list's items, `str` or `dict`. The environment has the latter as JSON, and
    so it has a setting that is a dictionary.
    """
    metadata = {"help": help_text, "items": items, "kind": type(default)}
    if isinstance(default, list | dict):
        metadata["default"] = default
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)
