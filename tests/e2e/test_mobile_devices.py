"""Notifications to phones of a running server, by APNs and FCM of our own that speak HTTP/2."""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from tests import eventually
from tests.push.devices.http2_server import Response
from tests.push.devices.mobile_services import (
    SENT,
    Apple,
    Google,
    MobileService,
    apple_refuses,
    google_refuses,
)

from .harness import Embedded, System, manage
from .world import World, new_key

LONG = 60.0  # seconds: pauses after failures add up
NOTIFY = {"title": "Order 7", "body": "sent — ✓", "tag": "o7", "data": {"n": 1}}

Enter = Callable[[System], Awaitable[World]]


class Phones:
    """A running server, and the services of its phones."""

    def __init__(self, world: World, apple: Apple, google: Google) -> None:
        self.world = world
        self.apple = apple
        self.google = google

    async def register(self, key: str, provider: str) -> str:
        """Register a phone as its app does, with the client's token; return its device token."""
        token = secrets.token_hex(32)
        answer = await self.world.api.http.post(
            "/sub/devices",
            headers={"Authorization": f"Bearer {await self.world.token(key)}"},
            json={"provider": provider, "token": token},
        )
        assert answer.status_code == 201, answer.text
        return token

    async def outcomes(self, push_id: int, member: str = "notified") -> list[dict[str, Any]]:
        """What the record of a push to one key has of its devices."""
        record = await self.world.api.get(f"/api/v1/pushes/{push_id}")
        found: list[dict[str, Any]] = record["results"][0].get(member, [])
        return found

    def log(self) -> str:
        return self.world.system.nodes[0].log.read_text()


@pytest.fixture
def services(tmp_path: Path) -> Iterator[tuple[Apple, Google]]:
    apple, google = Apple(tmp_path), Google(tmp_path)
    with ExitStack() as stack:
        for service in (apple, google):
            stack.enter_context(service.running())
        yield apple, google


@pytest.fixture
async def phones(
    services: tuple[Apple, Google],
    make_embedded: Callable[..., Embedded],
    enter: Enter,
) -> Any:
    apple, google = services
    settings = apple.settings() | google.settings()
    system = make_embedded(
        IMGO_NOTIFY_TIMEOUT="2", **{f"IMGO_{name}": value for name, value in settings.items()}
    )
    await asyncio.to_thread(system.start)
    try:
        yield Phones(await enter(system), apple, google)
    finally:
        await asyncio.to_thread(system.stop)


async def test_phones_are_notified_and_closed_after_the_message_was_read(phones: Phones) -> None:
    world, key = phones.world, new_key()
    tokens = {name: await phones.register(key, name) for name in ("apns", "fcm")}
    push_id = await world.api.push({"key": key}, b"1", notify=NOTIFY, notify_after=0)

    async def both(member: str) -> list[dict[str, Any]]:
        await eventually(lambda: _has(2, phones.outcomes(push_id, member)))
        return await phones.outcomes(push_id, member)

    notified = await both("notified")
    assert {one["provider_id"] for one in notified} >= {SENT}
    client = await world.session(key, ack=True)
    await client.ack(await client.receive())
    closed = await both("closed")
    assert {one["device"] for one in closed} == {one["device"] for one in notified}
    alert, closing = phones.apple.requests_to(tokens["apns"])
    assert alert.json["aps"]["alert"] == {"title": "Order 7", "body": "sent — ✓"}
    assert closing.json["imgo"] == {"id": str(push_id), "close": "true", "tag": "o7"}
    shown, data = phones.google.requests_to(tokens["fcm"])
    assert shown.json["message"]["notification"]["title"] == "Order 7"
    assert data.json["message"]["data"] == {"id": str(push_id), "close": "true", "tag": "o7"}
    explained = await asyncio.to_thread(
        manage, world.system.environment, "explain", key, str(push_id)
    )
    assert explained.count("took what closes its notification") == 2
    for secret in (*tokens.values(), "access-1", "PRIVATE KEY"):
        assert secret not in phones.log()


async def _has(count: int, outcomes: Awaitable[list[Any]]) -> bool:
    return len(await outcomes) == count


def _date(seconds: float) -> str:
    return formatdate(time.time() + seconds, usegmt=True)


# Answers before the service accepts; what the record has; seconds that must lie between the first
# request and the one that is accepted.
CASES: dict[str, tuple[str, Callable[[], list[Response | None]], str, float]] = {
    "410": ("apns", lambda: [apple_refuses(410, "Unregistered")], "Unregistered", 0),
    "429 of APNs": ("apns", lambda: [Response(429, {"retry-after": "4"})], "", 4),
    "429 with a date": ("fcm", lambda: [Response(429, {"retry-after": _date(5)})], "", 3),
    "429 of FCM": (
        "fcm", lambda: [google_refuses(429, "QUOTA_EXCEEDED", {"retry-after": "4"})], "", 4,
    ),
    "503 of APNs": ("apns", lambda: [Response(503, {"retry-after": "4"})], "", 4),
    "503 of FCM": ("fcm", lambda: [google_refuses(503, "UNAVAILABLE")], "", 1),
    "403 of APNs": ("apns", lambda: [apple_refuses(403, "Forbidden")], "Forbidden", 0),
    "403 of FCM": (
        "fcm", lambda: [google_refuses(403, "SENDER_ID_MISMATCH")], "SENDER_ID_MISMATCH", 0,
    ),
    "404": ("fcm", lambda: [google_refuses(404, "UNREGISTERED")], "UNREGISTERED", 0),
    "a hang of APNs": ("apns", lambda: [None], "", 2),
    "a hang of FCM": ("fcm", lambda: [None], "", 2),
    "500 for long": ("fcm", lambda: [Response(500) for _ in range(3)], "", 9),
}  # fmt: skip


@pytest.mark.timeout(180)
@pytest.mark.long
async def test_what_a_provider_answers_decides(phones: Phones) -> None:
    """Each phone has a provider that fails in another way, all at once: one way delays no other."""
    world = phones.world
    services: dict[str, MobileService] = {"apns": phones.apple, "fcm": phones.google}
    keys = {name: new_key() for name in CASES}
    tokens = {name: await phones.register(keys[name], CASES[name][0]) for name in CASES}
    ids: dict[str, int] = {}
    for name, (provider, answers, *_) in CASES.items():
        services[provider].answers_to[tokens[name]] = answers()
        options = {"notify": NOTIFY, "notify_after": 0}
        ids[name] = await world.api.push({"key": keys[name]}, 1, **options)
    for name, (provider, _, reason, pause) in CASES.items():
        await eventually(lambda: _has(1, phones.outcomes(ids[name])), LONG)  # noqa: B023
        (outcome,) = await phones.outcomes(ids[name])
        assert outcome.get("reason", "") == reason, name
        requests = services[provider].requests_to(tokens[name])
        assert requests[-1].at - requests[0].at >= pause, name
        is_gone = name in {"410", "404"}
        found = (await world.api.get(f"/api/v1/keys/{keys[name]}/devices"))["count"]
        assert found == (0 if is_gone else 1), name
    assert not [token for token in tokens.values() if token in phones.log()]
