"""Interface of a provider, and what providers share."""

from pathlib import Path
from typing import Protocol

from push.devices.jobs import Job, Result


class Provider(Protocol):
    """Service that takes notifications to devices, for one event loop."""

    name: str

    async def send(self, job: Job) -> Result:
        """Send a notification once. The caller sets a time limit. Raises `NoAnswer`."""

    async def close(self) -> None:
        """Close the connections."""


def text_or_file(value: str, mark: str) -> str:
    """Return the text of a setting: its value if that contains `mark`, else the file it names.

    Raises `OSError` if the file cannot be read.
    """
    return value if mark in value else Path(value.strip()).read_text()
