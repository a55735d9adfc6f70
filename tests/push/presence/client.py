"""A client's picture of a room, kept by the rules of docs/protocol.md."""

import json
from typing import Any


class Picture:
    """Who is in a room, as one client knows it.

    `members`: key → info; None without a list. `asks`: how often a diff did not fit.
    `joined`, `left`: how often each key was told to have joined or left.
    """

    def __init__(self) -> None:
        self.version = ""
        self.count = 0
        self.members: dict[str, Any] | None = None
        self.asks = 0
        self.joined: list[str] = []
        self.left: list[str] = []

    def snapshot(self, body: bytes) -> dict[str, Any]:
        """Take the reply to op 26."""
        value = json.loads(body)
        self._replace(value)
        return value

    def _replace(self, value: dict[str, Any]) -> None:
        self.version, self.count = value["version"], value["count"]
        rows = value.get("members")
        self.members = None if rows is None else {row["key"]: row["info"] for row in rows}

    def diff(self, body: bytes) -> None:
        """Apply the body of a diff (op 28)."""
        value = json.loads(body)
        if value.get("reset"):
            self._replace(value)
        elif value["base"] == self.version:
            self._apply(value)
        elif not _is_older(value["version"], self.version):
            self.asks += 1

    def _apply(self, value: dict[str, Any]) -> None:
        self.version, self.count = value["version"], value["count"]
        if value.get("truncated"):
            self.members = None
            return
        assert self.members is not None
        for row in value["joined"]:
            self.members[row["key"]] = row["info"]
            self.joined.append(row["key"])
        for key in value["left"]:
            del self.members[key]
            self.left.append(key)
        assert len(self.members) == self.count


def _is_older(version: str, than: str) -> bool:
    """Whether a version is not newer than another one of the same epoch."""
    (epoch, _, number), (other, _, last) = version.partition("."), than.partition(".")
    return epoch == other and int(number) <= int(last)
