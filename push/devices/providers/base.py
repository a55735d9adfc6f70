"""Interface of a provider, and what providers share."""

import json
from pathlib import Path
from typing import Any, Protocol

from push.devices.jobs import Job, Result


class Provider(Protocol):
    """Service that takes notifications to devices, for one event loop."""

    name: str

    async def send(self, job: Job) -> Result:
        """Send a notification once, or what closes it. Raises `NoAnswer`.

        The caller sets a time limit. Only the providers of `CLOSING_PROVIDERS` get jobs that close.
        """

    async def close(self) -> None:
        """Close the connections."""


def compact_json(value: dict[str, Any]) -> bytes:
    """Return JSON in UTF-8 without spaces."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def closing_members(job: Job) -> dict[str, str]:
    """Return the members that tell an app which notification to close."""
    members = {"id": str(job.message_id), "close": "true"}
    return members | {name: job.content[name] for name in ("tag",) if name in job.content}


def text_or_file(value: str, mark: str) -> str:
    """Return the text of a setting: its value if that contains `mark`, else the file it names.

    Raises `OSError` if the file cannot be read.
    """
    return value if mark in value else Path(value.strip()).read_text()
