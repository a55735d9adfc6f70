"""Pushes to some keys and a room, call by call, tries again or goes on, and tells the history."""

import asyncio
import json
import random
import secrets
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import httpx

from tests import NO_TLS

from .history import History, Push

if TYPE_CHECKING:
    from .load import Load

CALL_TIMEOUT = 10.0  # seconds for an answer of the API
RETRY_AFTER = (0.1, 0.5)  # seconds until a push is tried again
RETRY_FOR = 60.0  # seconds; then its outcome is what it is
RETRIED_SHARE = 0.7  # of the pushes have a dedupe id and are tried again
ROOM_SHARE = 0.1  # of the calls are for the room
KEPT_SHARE = 0.1  # of the calls are for the room with history beside it
KEYS_MAX = 5  # of one push

Target = dict[str, Any]


class Pusher:
    """Pushes to its own keys and room, one call after the other: so each of them has an order."""

    def __init__(self, load: "Load", keys: list[str], room: str, urls: Callable[[], str]) -> None:
        self._load = load
        self._keys = keys
        self._room = room
        self._urls = urls
        self._kept_room = f"kept-{room}"
        self._followers = load.followers_of(self._kept_room)
        self._numbers = dict.fromkeys((*keys, room, *self._followers), -1)
        self._random = random.Random(load.random.random())
        self._http = httpx.AsyncClient(
            headers={"Authorization": f"Api-Key {load.cluster.api_key}"},
            timeout=CALL_TIMEOUT,
            trust_env=False,
            verify=NO_TLS,
        )

    async def run(self) -> None:
        """Push until the load stops."""
        try:
            while self._load.is_pushing:
                kind = self._random.random()
                if kind < ROOM_SHARE:
                    await self._push_to_room()
                elif kind < ROOM_SHARE + KEPT_SHARE:
                    await self._push_to_kept_room()
                else:
                    await self._push_some()
                await asyncio.sleep(self._random.uniform(0, 2 * self._load.pause))
        finally:
            await self._http.aclose()

    async def _push_some(self) -> None:
        """One call: a push to a key, to some keys, or an array of pushes."""
        kind = self._random.random()
        if kind < 0.7 or len(self._keys) < 2:
            groups = [[self._random.choice(self._keys)]]
        elif kind < 0.85:
            count = self._random.randint(2, min(KEYS_MAX, len(self._keys)))
            groups = [self._random.sample(self._keys, count)]
        else:  # the same key may be in it again
            groups = [[self._random.choice(self._keys)] for _ in range(self._random.randint(2, 4))]
        history = self._load.history
        pushes = [self._new(history, keys) for keys in groups]
        await self._try(history, pushes, [_to_keys(push) for push in pushes])

    async def _push_to_room(self) -> None:
        push = self._new(self._load.rooms, [self._room])
        await self._try(self._load.rooms, [push], [{"room": self._room}])

    async def _push_to_kept_room(self) -> None:
        push = self._new(self._load.kept, self._followers)
        await self._try(self._load.kept, [push], [{"room": self._kept_room}])

    async def _try(self, history: History, pushes: list[Push], targets: list[Target]) -> None:
        """Once, or with a dedupe id until all of it was accepted."""
        is_retried = self._random.random() < RETRIED_SHARE
        items = [_item(push, to, is_retried) for push, to in zip(pushes, targets, strict=True)]
        content = items[0] if len(items) == 1 else b"[%b]" % b",".join(items)
        deadline = time.monotonic() + RETRY_FOR
        while not await self._call(history, pushes, content) and is_retried:
            if time.monotonic() > deadline:
                return
            await asyncio.sleep(self._random.uniform(*RETRY_AFTER))

    def _new(self, history: History, names: list[str]) -> Push:
        for name in names:
            self._numbers[name] += 1
        return self._load.new_push(history, {name: self._numbers[name] for name in names})

    async def _call(self, history: History, pushes: list[Push], content: bytes) -> bool:
        """Whether all of it was accepted."""
        asked = history.clock()
        status: int | None
        try:
            answer = await self._http.post(f"{self._urls()}/api/v1/pushes", content=content)
        except (httpx.ConnectError, httpx.ConnectTimeout):
            status, said, is_unknown = 0, [], False
        except httpx.TransportError:
            status, said, is_unknown = None, [], False
        else:
            status = answer.status_code
            said = _said(answer)
            is_unknown = status == 503 and answer.json().get("code") == "outcome_unknown"
        for place, push in enumerate(pushes):
            one, message_id = said[place] if said else (status, 0)
            history.answer(push, asked, one, message_id, is_unknown=is_unknown)
        return all(push.is_accepted for push in pushes)


def _to_keys(push: Push) -> Target:
    keys = list(push.numbers)
    return {"keys": keys} if len(keys) > 1 else {"key": keys[0]}


def _item(push: Push, to: Target, is_retried: bool) -> bytes:
    options = {"dedupe_id": secrets.token_hex(8)} if is_retried else {}
    return b'%b,"body":%b}' % (json.dumps({"to": to, **options})[:-1].encode(), push.body.encode())


def _said(answer: httpx.Response) -> list[tuple[int, int]]:
    """(status, id) for each push of an answer."""
    if answer.status_code != 202:
        return []
    found = answer.json()
    items = found if isinstance(found, list) else [found]
    return [
        (202, int(item["id"])) if "id" in item else (item["error"]["status"], 0) for item in items
    ]
