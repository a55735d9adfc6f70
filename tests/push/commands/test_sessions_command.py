"""The table of `manage.py sessions`."""

from datetime import UTC, datetime
from typing import Any

import pytest

from push.management.commands import sessions


@pytest.mark.parametrize(
    "since", ["2026-11-26T08:20:57.600Z", datetime(2026, 11, 26, 8, 20, 57, 600_000, tzinfo=UTC)]
)
def test_sessions_since_as_text_or_datetime_is_printed(
    since: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    node = {"id": "5938fe7d", "number": 1, "name": "web1", "sessions": 2, "since": since}
    monkeypatch.setattr(sessions, "nodes", lambda: [{**node, "draining": True}])
    sessions.Command().run(key=None, json=False)
    assert capsys.readouterr().out.split("\n")[1].split() == [
        *("5938fe7d", "1", "web1", "2", "2026-11-26T08:20:57Z", "yes")
    ]
