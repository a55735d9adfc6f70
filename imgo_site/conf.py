"""imgo's own settings. `imgo_site/setting_groups/` declares each with its default and its unit.

Read them as `conf.HEARTBEAT_TIMEOUT`. A value comes from the first of these that has it: the
environment variable `IMGO_<NAME>`, the `IMGO` dictionary of Django's settings, the declaration's
default. An empty variable counts as unset. A value is read once, and again after Django's
`setting_changed` signal.
"""

import os
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, cast

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed

from imgo_site.setting_groups.access import AccessSettings
from imgo_site.setting_groups.delivery import DeliverySettings
from imgo_site.setting_values import convert, shown


@dataclass(frozen=True)
class ImgoSettings(DeliverySettings, AccessSettings):
    """All settings, typed. `field.metadata["help"]`: the text for the settings table.

    The fields of the last base class come first, in the table too.
    """


def given() -> Mapping[Any, Any]:
    """Return the `IMGO` dictionary of Django's settings.

    Raises `ImproperlyConfigured` if it is no dictionary.
    """
    dictionary = getattr(settings, "IMGO", {})
    if not isinstance(dictionary, Mapping):
        raise ImproperlyConfigured(
            f"IMGO={shown(dictionary)} must be a dictionary, such as IMGO = {{'TCP_PORT': 0}}."
        )
    return dictionary


def known_names() -> set[str]:
    """Return the names of all settings."""
    return {item.name for item in fields(ImgoSettings)}


def load() -> ImgoSettings:
    """Read all settings. Raises `ImproperlyConfigured` if one is invalid."""
    dictionary = given()
    values = {}
    for item in fields(ImgoSettings):
        raw: Any = os.environ.get(f"IMGO_{item.name}", "")
        if not raw.strip():
            raw = dictionary.get(item.name)
        if raw is not None:
            values[item.name] = convert(
                item.name, raw, item.metadata["kind"], item.metadata["items"]
            )
    return ImgoSettings(**values)


class _Conf:
    """Cache of the settings: read on first use, kept until Django's `setting_changed`."""

    def __init__(self) -> None:
        self._loaded: ImgoSettings | None = None

    def __getattr__(self, name: str) -> Any:
        if self._loaded is None:
            self._loaded = load()
        value = getattr(self._loaded, name)
        # Kept on the object itself: the next read is a plain attribute access.
        self.__dict__[name] = value
        return value

    def reset(self) -> None:
        """Drop the cached settings."""
        self.__dict__.clear()
        self._loaded = None


_conf = _Conf()
conf = cast(ImgoSettings, _conf)


def _on_setting_changed(*, setting: str, **_: Any) -> None:
    if setting == "IMGO":
        _conf.reset()


setting_changed.connect(_on_setting_changed)


def markdown_table() -> str:
    """Return the table of settings in docs/reference/settings.md."""
    lines = ["| setting | default | |", "|---|---|---|"]
    for item in fields(ImgoSettings):
        default = item.metadata["default"] if item.default is MISSING else item.default
        if isinstance(default, list):
            default = ", ".join(default)
        text = f"`{default}`" if default not in ("", {}) else ""
        lines.append(f"| `{item.name}` | {text} | {item.metadata['help']} |")
    return "\n".join(lines)
