"""Calls of the API besides pushing: records of pushes, keys, rooms, nodes and tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from imgo_client.answers import (
    Cancelled,
    DevicePage,
    DeviceRow,
    KeptPage,
    KeyState,
    MemberPage,
    NewToken,
    NodePage,
    PositionState,
    PushRecord,
    RoomPage,
    Stats,
    TokenPage,
    TokenRow,
)
from imgo_client.requests import (
    LIMIT,
    Request,
    check_empty,
    devices_of,
    fewer_devices,
    members_of,
    messages_of,
    new_device,
    new_token,
    page,
    part,
    push_of,
    tokens_of,
)


class Calls:
    """The methods of `Publisher` besides pushing.

    Each may raise `ApiError` (with a subclass for each status), `Unreachable` and `BadAnswer`,
    which are all `PublishError`, and ValueError for an empty key or room. Each call is retried
    within the limits of `retry`. Answers are dictionaries, with the types in `imgo_client.answers`.
    """

    def _call(self, request: Request) -> Any:
        raise NotImplementedError

    def check(self) -> None:
        """Check the URL and the API key.

        Raises `PublishError` unless pushes are accepted with it.
        """
        check_empty(self._call(Request("POST", "pushes", body=[])))

    def result(self, push_id: int | str, limit: int = LIMIT, offset: int = 0) -> PushRecord:
        """Return the record of a push: totals, and a page of its keys. Raises `NotFound`."""
        answer: PushRecord = self._call(push_of(push_id, limit, offset))
        return answer

    def cancel(self, push_id: int | str) -> Cancelled:
        """Cancel the scheduled or pending deliveries of a push. Raises `NotFound`, `Forbidden`."""
        answer: Cancelled = self._call(Request("DELETE", f"pushes/{int(push_id)}"))
        return answer

    def cancel_by_dedupe_id(self, dedupe_id: str) -> Cancelled:
        """Cancel a push of this API key by its `dedupe_id`. Raises `NotFound`."""
        cancelled: Cancelled = self._call(Request("DELETE", "pushes", {"dedupe_id": dedupe_id}))
        return cancelled

    def key(self, key: str) -> KeyState:
        """Return the sessions of a key and how many messages are pending for it."""
        answer: KeyState = self._call(Request("GET", f"keys/{part(key)}"))
        return answer

    def kick(self, key: str) -> int:
        """Close all sessions of a key, whose clients must not reconnect; return their number."""
        answer = self._call(Request("DELETE", f"keys/{part(key)}/sessions"))
        return int(answer["closed"])

    def devices(self, key: str, limit: int = LIMIT, offset: int = 0) -> DevicePage:
        """Return a page of the devices of a key: `count`, `results`."""
        page: DevicePage = self._call(devices_of(key, limit, offset))
        return page

    def register_device(
        self,
        key: str,
        provider: str,
        *,
        subscription: Mapping[str, Any] | None = None,
        token: str | None = None,
        name: str = "",
    ) -> DeviceRow:
        """Register a device of a key, or renew it. It is no other key's any more.

        `provider`: "webpush" with a `subscription`, as the browser's `toJSON()` gives it, or
        "apns" or "fcm" with a `token`. `name`: for people.
        """
        device: DeviceRow = self._call(new_device(key, provider, subscription, token, name))
        return device

    def delete_devices(self, key: str, device: int | str | None = None) -> int:
        """Delete a device of a key, or all of them; return how many there were."""
        return int(self._call(fewer_devices(key, device))["deleted"])

    def rooms(self, limit: int = LIMIT, offset: int = 0) -> RoomPage:
        """Return a page of the rooms that have sessions, fullest first: `count`, `results`."""
        answer: RoomPage = self._call(Request("GET", "rooms", page(limit, offset)))
        return answer

    def room(self, room: str, limit: int = LIMIT, offset: int = 0) -> MemberPage:
        """Return a page of the sessions in a room. Raises `NotFound` if it is empty."""
        answer: MemberPage = self._call(members_of(room, limit, offset))
        return answer

    def room_position(self, room: str) -> PositionState:
        """Return the position of a room with history: `epoch`, `offset`. Raises `NotFound`."""
        answer: PositionState = self._call(Request("GET", f"rooms/{part(room)}/position"))
        return answer

    def room_messages(
        self,
        room: str,
        since: int | None = None,
        before: int | None = None,
        limit: int = LIMIT,
        order: str = "",
    ) -> KeptPage:
        """Return kept messages of a room with history: those with `since` < offset < `before`.

        `order`: "newest" or "oldest" first; "": oldest with `since`, else newest. Raises `NotFound`
        if the room keeps no messages.
        """
        answer: KeptPage = self._call(messages_of(room, since, before, limit, order))
        return answer

    def empty_room(self, room: str) -> int:
        """Delete the kept messages of a room; return their number. Raises `NotFound`."""
        answer = self._call(Request("DELETE", f"rooms/{part(room)}/messages"))
        return int(answer["deleted"])

    def nodes(self) -> NodePage:
        """Return the live nodes: `count`, `results`."""
        answer: NodePage = self._call(Request("GET", "nodes"))
        return answer

    def stats(self) -> Stats:
        """Return the numbers of nodes, sessions and rooms."""
        answer: Stats = self._call(Request("GET", "stats"))
        return answer

    def tokens(self, limit: int = LIMIT, offset: int = 0, key: str = "") -> TokenPage:
        """Return a page of the tokens, without their texts; with `key`, only those of this key."""
        answer: TokenPage = self._call(tokens_of(key, limit, offset))
        return answer

    def token(self, key: str) -> TokenRow:
        """Return the properties of a key's token, without its text. Raises `NotFound`."""
        answer: TokenRow = self._call(Request("GET", f"tokens/{part(key)}"))
        return answer

    def create_token(
        self,
        key: str,
        *,
        token: str = "",
        expires_in: int | None = None,
        rooms: Sequence[str] | None = None,
        join: Sequence[str] | None = None,
        info: Mapping[str, Any] | None = None,
    ) -> NewToken:
        """Create the token of a key, which replaces an earlier one. Its text is the answer's
        `token`.

        `token`: a text of your own. `expires_in`: seconds; None: never. `rooms`: names or `*`
        patterns that the token may join; None: the server's default. `join`: rooms that its
        sessions join at once. `info`: JSON object that others in a room with presence see of the
        key.
        """
        answer: NewToken = self._call(new_token(key, token, expires_in, rooms, join, info))
        return answer

    def revoke_token(self, key: str) -> None:
        """Revoke the token of a key, and close the sessions that it has opened."""
        self._call(Request("DELETE", f"tokens/{part(key)}"))


class AsyncCalls:
    """The methods of `AsyncPublisher` besides pushing: those of `Calls`, as coroutines."""

    async def _call(self, request: Request) -> Any:
        raise NotImplementedError

    async def check(self) -> None:
        """Check the URL and the API key.

        See `Publisher.check` for the arguments.
        """
        check_empty(await self._call(Request("POST", "pushes", body=[])))

    async def result(self, push_id: int | str, limit: int = LIMIT, offset: int = 0) -> PushRecord:
        """Return the record of a push: totals, and a page of its keys. Raises `NotFound`."""
        answer: PushRecord = await self._call(push_of(push_id, limit, offset))
        return answer

    async def cancel(self, push_id: int | str) -> Cancelled:
        """Cancel the scheduled or pending deliveries of a push. Raises `NotFound`, `Forbidden`."""
        answer: Cancelled = await self._call(Request("DELETE", f"pushes/{int(push_id)}"))
        return answer

    async def cancel_by_dedupe_id(self, dedupe_id: str) -> Cancelled:
        """As `Publisher.cancel_by_dedupe_id`."""
        cancelled: Cancelled = await self._call(
            Request("DELETE", "pushes", {"dedupe_id": dedupe_id})
        )
        return cancelled

    async def key(self, key: str) -> KeyState:
        """Return the sessions of a key and how many messages are pending for it."""
        answer: KeyState = await self._call(Request("GET", f"keys/{part(key)}"))
        return answer

    async def kick(self, key: str) -> int:
        """Close all sessions of a key, whose clients must not reconnect; return their number."""
        answer = await self._call(Request("DELETE", f"keys/{part(key)}/sessions"))
        return int(answer["closed"])

    async def devices(self, key: str, limit: int = LIMIT, offset: int = 0) -> DevicePage:
        """As `Publisher.devices`."""
        page: DevicePage = await self._call(devices_of(key, limit, offset))
        return page

    async def register_device(
        self,
        key: str,
        provider: str,
        *,
        subscription: Mapping[str, Any] | None = None,
        token: str | None = None,
        name: str = "",
    ) -> DeviceRow:
        """As `Publisher.register_device`."""
        device: DeviceRow = await self._call(new_device(key, provider, subscription, token, name))
        return device

    async def delete_devices(self, key: str, device: int | str | None = None) -> int:
        """As `Publisher.delete_devices`."""
        return int((await self._call(fewer_devices(key, device)))["deleted"])

    async def rooms(self, limit: int = LIMIT, offset: int = 0) -> RoomPage:
        """Return a page of the rooms that have sessions, fullest first: `count`, `results`."""
        answer: RoomPage = await self._call(Request("GET", "rooms", page(limit, offset)))
        return answer

    async def room(self, room: str, limit: int = LIMIT, offset: int = 0) -> MemberPage:
        """Return a page of the sessions in a room. Raises `NotFound` if it is empty."""
        answer: MemberPage = await self._call(members_of(room, limit, offset))
        return answer

    async def room_position(self, room: str) -> PositionState:
        """Return the position of a room with history: `epoch`, `offset`. Raises `NotFound`."""
        answer: PositionState = await self._call(Request("GET", f"rooms/{part(room)}/position"))
        return answer

    async def room_messages(
        self,
        room: str,
        since: int | None = None,
        before: int | None = None,
        limit: int = LIMIT,
        order: str = "",
    ) -> KeptPage:
        """Return kept messages of a room with history: those with `since` < offset < `before`.

        See `Publisher.room_messages` for the arguments.
        """
        answer: KeptPage = await self._call(messages_of(room, since, before, limit, order))
        return answer

    async def empty_room(self, room: str) -> int:
        """Delete the kept messages of a room; return their number. Raises `NotFound`."""
        answer = await self._call(Request("DELETE", f"rooms/{part(room)}/messages"))
        return int(answer["deleted"])

    async def nodes(self) -> NodePage:
        """Return the live nodes: `count`, `results`."""
        answer: NodePage = await self._call(Request("GET", "nodes"))
        return answer

    async def stats(self) -> Stats:
        """Return the numbers of nodes, sessions and rooms."""
        answer: Stats = await self._call(Request("GET", "stats"))
        return answer

    async def tokens(self, limit: int = LIMIT, offset: int = 0, key: str = "") -> TokenPage:
        """Return a page of the tokens, without their texts; with `key`, only those of this key."""
        answer: TokenPage = await self._call(tokens_of(key, limit, offset))
        return answer

    async def token(self, key: str) -> TokenRow:
        """Return the properties of a key's token, without its text. Raises `NotFound`."""
        answer: TokenRow = await self._call(Request("GET", f"tokens/{part(key)}"))
        return answer

    async def create_token(
        self,
        key: str,
        *,
        token: str = "",
        expires_in: int | None = None,
        rooms: Sequence[str] | None = None,
        join: Sequence[str] | None = None,
        info: Mapping[str, Any] | None = None,
    ) -> NewToken:
        """Create the token of a key, which replaces an earlier one. Its text is the answer's
        `token`.

        See `Publisher.create_token` for the arguments.
        """
        answer: NewToken = await self._call(new_token(key, token, expires_in, rooms, join, info))
        return answer

    async def revoke_token(self, key: str) -> None:
        """Revoke the token of a key, and close the sessions that it has opened."""
        await self._call(Request("DELETE", f"tokens/{part(key)}"))
