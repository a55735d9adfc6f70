"""The publishers' methods besides pushing: results, keys, rooms, nodes and tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from imgo_client.answers import (
    Cancelled,
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
    members_of,
    messages_of,
    new_token,
    page,
    part,
    push_of,
    tokens_of,
)


class Calls:
    """The methods of `Publisher` besides pushing.

    Each may raise `ApiError` (with a subclass for each status), `Unreachable` and `BadAnswer`, all
    of them `PublishError`, and ValueError for a key or room that is empty. Each is repeated as
    `retry` says. Answers are dictionaries, whose types are in `imgo_client.answers`.
    """

    def _call(self, request: Request) -> Any:
        raise NotImplementedError

    def check(self) -> None:
        """Push nothing: raises `PublishError` unless the server accepts pushes with the API key."""
        check_empty(self._call(Request("POST", "pushes", body=[])))

    def result(self, push_id: int | str, limit: int = LIMIT, offset: int = 0) -> PushRecord:
        """Return what became of a push: totals, and a page of its keys. Raises `NotFound`."""
        found: PushRecord = self._call(push_of(push_id, limit, offset))
        return found

    def cancel(self, push_id: int | str) -> Cancelled:
        """Cancel what is still scheduled or pending of a push. Raises `NotFound`, `Forbidden`."""
        found: Cancelled = self._call(Request("DELETE", f"pushes/{int(push_id)}"))
        return found

    def key(self, key: str) -> KeyState:
        """Return the sessions of a key and how many messages are pending for it."""
        found: KeyState = self._call(Request("GET", f"keys/{part(key)}"))
        return found

    def kick(self, key: str) -> int:
        """Close all sessions of a key, which must not come back; return how many there were."""
        answer = self._call(Request("DELETE", f"keys/{part(key)}/sessions"))
        return int(answer["closed"])

    def rooms(self, limit: int = LIMIT, offset: int = 0) -> RoomPage:
        """Return a page of the rooms with sessions in them, fullest first: `count`, `results`."""
        found: RoomPage = self._call(Request("GET", "rooms", page(limit, offset)))
        return found

    def room(self, room: str, limit: int = LIMIT, offset: int = 0) -> MemberPage:
        """Return a page of the sessions in a room. Raises `NotFound` if it is empty."""
        found: MemberPage = self._call(members_of(room, limit, offset))
        return found

    def room_position(self, room: str) -> PositionState:
        """Return the position of a room with history: `epoch`, `offset`. Raises `NotFound`."""
        found: PositionState = self._call(Request("GET", f"rooms/{part(room)}/position"))
        return found

    def room_messages(
        self,
        room: str,
        since: int | None = None,
        before: int | None = None,
        limit: int = LIMIT,
        order: str = "",
    ) -> KeptPage:
        """Return kept messages of a room with history: those with `since` < offset < `before`.

        `order`: "newest" or "oldest" first; "": oldest with `since`, else newest.
        Raises `NotFound` if the room keeps no messages.
        """
        found: KeptPage = self._call(messages_of(room, since, before, limit, order))
        return found

    def empty_room(self, room: str) -> int:
        """Forget the kept messages of a room; return how many there were. Raises `NotFound`."""
        answer = self._call(Request("DELETE", f"rooms/{part(room)}/messages"))
        return int(answer["deleted"])

    def nodes(self) -> NodePage:
        """Return the live nodes: `count`, `results`."""
        found: NodePage = self._call(Request("GET", "nodes"))
        return found

    def stats(self) -> Stats:
        """Return the numbers of nodes, sessions and rooms."""
        found: Stats = self._call(Request("GET", "stats"))
        return found

    def tokens(self, limit: int = LIMIT, offset: int = 0, key: str = "") -> TokenPage:
        """Return a page of the tokens, without their texts; of one key, if it is named."""
        found: TokenPage = self._call(tokens_of(key, limit, offset))
        return found

    def token(self, key: str) -> TokenRow:
        """Return what is known of a key's token, without its text. Raises `NotFound`."""
        found: TokenRow = self._call(Request("GET", f"tokens/{part(key)}"))
        return found

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
        """Give a key a token, which replaces the one it had; its text is the answer's `token`.

        `token`: a text of your own. `expires_in`: seconds, None: never. `rooms`: names or `*`
        patterns that it may join, None: the server's default. `join`: rooms that its sessions are
        in from the start. `info`: what others in a room with presence see of the key.
        """
        found: NewToken = self._call(new_token(key, token, expires_in, rooms, join, info))
        return found

    def revoke_token(self, key: str) -> None:
        """Revoke the token of a key, and close the sessions that it opened."""
        self._call(Request("DELETE", f"tokens/{part(key)}"))


class AsyncCalls:
    """The methods of `AsyncPublisher` besides pushing: those of `Calls`, to be awaited."""

    async def _call(self, request: Request) -> Any:
        raise NotImplementedError

    async def check(self) -> None:
        """As `Publisher.check`."""
        check_empty(await self._call(Request("POST", "pushes", body=[])))

    async def result(self, push_id: int | str, limit: int = LIMIT, offset: int = 0) -> PushRecord:
        """As `Publisher.result`."""
        found: PushRecord = await self._call(push_of(push_id, limit, offset))
        return found

    async def cancel(self, push_id: int | str) -> Cancelled:
        """As `Publisher.cancel`."""
        found: Cancelled = await self._call(Request("DELETE", f"pushes/{int(push_id)}"))
        return found

    async def key(self, key: str) -> KeyState:
        """As `Publisher.key`."""
        found: KeyState = await self._call(Request("GET", f"keys/{part(key)}"))
        return found

    async def kick(self, key: str) -> int:
        """As `Publisher.kick`."""
        answer = await self._call(Request("DELETE", f"keys/{part(key)}/sessions"))
        return int(answer["closed"])

    async def rooms(self, limit: int = LIMIT, offset: int = 0) -> RoomPage:
        """As `Publisher.rooms`."""
        found: RoomPage = await self._call(Request("GET", "rooms", page(limit, offset)))
        return found

    async def room(self, room: str, limit: int = LIMIT, offset: int = 0) -> MemberPage:
        """As `Publisher.room`."""
        found: MemberPage = await self._call(members_of(room, limit, offset))
        return found

    async def room_position(self, room: str) -> PositionState:
        """As `Publisher.room_position`."""
        found: PositionState = await self._call(Request("GET", f"rooms/{part(room)}/position"))
        return found

    async def room_messages(
        self,
        room: str,
        since: int | None = None,
        before: int | None = None,
        limit: int = LIMIT,
        order: str = "",
    ) -> KeptPage:
        """As `Publisher.room_messages`."""
        found: KeptPage = await self._call(messages_of(room, since, before, limit, order))
        return found

    async def empty_room(self, room: str) -> int:
        """As `Publisher.empty_room`."""
        answer = await self._call(Request("DELETE", f"rooms/{part(room)}/messages"))
        return int(answer["deleted"])

    async def nodes(self) -> NodePage:
        """As `Publisher.nodes`."""
        found: NodePage = await self._call(Request("GET", "nodes"))
        return found

    async def stats(self) -> Stats:
        """As `Publisher.stats`."""
        found: Stats = await self._call(Request("GET", "stats"))
        return found

    async def tokens(self, limit: int = LIMIT, offset: int = 0, key: str = "") -> TokenPage:
        """As `Publisher.tokens`."""
        found: TokenPage = await self._call(tokens_of(key, limit, offset))
        return found

    async def token(self, key: str) -> TokenRow:
        """As `Publisher.token`."""
        found: TokenRow = await self._call(Request("GET", f"tokens/{part(key)}"))
        return found

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
        """As `Publisher.create_token`."""
        found: NewToken = await self._call(new_token(key, token, expires_in, rooms, join, info))
        return found

    async def revoke_token(self, key: str) -> None:
        """As `Publisher.revoke_token`."""
        await self._call(Request("DELETE", f"tokens/{part(key)}"))
