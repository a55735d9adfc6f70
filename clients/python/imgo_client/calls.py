"""The publishers' methods besides pushing: results, keys, rooms, nodes and tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from imgo_client.requests import LIMIT, Request, new_token, page, part, push_of


class Calls:
    """The methods of `Publisher` besides pushing.

    Each may raise `ApiError` (with a subclass for each status), `Unreachable` and `BadAnswer`, all
    of them `PublishError`, and ValueError for a key or room that is empty. Each is repeated as
    `retry` says. Answers are the dictionaries that the HTTP API describes.
    """

    def _call(self, request: Request) -> Any:
        raise NotImplementedError

    def check(self) -> None:
        """Push nothing: raises `PublishError` unless the server accepts pushes with the API key."""
        self._call(Request("POST", "pushes", body=[]))

    def result(self, push_id: int | str, limit: int = LIMIT, offset: int = 0) -> dict[str, Any]:
        """Return what became of a push: totals, and a page of its keys. Raises `NotFound`."""
        found: dict[str, Any] = self._call(push_of(push_id, limit, offset))
        return found

    def key(self, key: str) -> dict[str, Any]:
        """Return the sessions of a key and how many messages are pending for it."""
        found: dict[str, Any] = self._call(Request("GET", f"keys/{part(key)}"))
        return found

    def kick(self, key: str) -> int:
        """Close all sessions of a key, which must not come back; return how many there were."""
        answer = self._call(Request("DELETE", f"keys/{part(key)}/sessions"))
        return int(answer["closed"])

    def rooms(self, limit: int = LIMIT, offset: int = 0) -> dict[str, Any]:
        """Return a page of the rooms with sessions in them, fullest first: `count`, `results`."""
        found: dict[str, Any] = self._call(Request("GET", "rooms", page(limit, offset)))
        return found

    def room(self, room: str, limit: int = LIMIT, offset: int = 0) -> dict[str, Any]:
        """Return a page of the sessions in a room. Raises `NotFound` if it is empty."""
        found: dict[str, Any] = self._call(
            Request("GET", f"rooms/{part(room)}", page(limit, offset))
        )
        return found

    def nodes(self) -> dict[str, Any]:
        """Return the live nodes: `count`, `results`."""
        found: dict[str, Any] = self._call(Request("GET", "nodes"))
        return found

    def stats(self) -> dict[str, Any]:
        """Return the numbers of nodes, sessions and rooms."""
        found: dict[str, Any] = self._call(Request("GET", "stats"))
        return found

    def tokens(self, limit: int = LIMIT, offset: int = 0) -> dict[str, Any]:
        """Return a page of the tokens, without their texts: `count`, `results`."""
        found: dict[str, Any] = self._call(Request("GET", "tokens", page(limit, offset)))
        return found

    def token(self, key: str) -> dict[str, Any]:
        """Return what is known of a key's token, without its text. Raises `NotFound`."""
        found: dict[str, Any] = self._call(Request("GET", f"tokens/{part(key)}"))
        return found

    def create_token(
        self,
        key: str,
        *,
        token: str = "",
        expires_in: int | None = None,
        rooms: Sequence[str] | None = None,
    ) -> dict[str, Any]:
        """Give a key a token, which replaces the one it had; its text is the answer's `token`.

        `token`: a text of your own. `expires_in`: seconds, None: never. `rooms`: names or `*`
        patterns that it may join, None: the server's default.
        """
        found: dict[str, Any] = self._call(new_token(key, token, expires_in, rooms))
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
        await self._call(Request("POST", "pushes", body=[]))

    async def result(
        self, push_id: int | str, limit: int = LIMIT, offset: int = 0
    ) -> dict[str, Any]:
        """As `Publisher.result`."""
        found: dict[str, Any] = await self._call(push_of(push_id, limit, offset))
        return found

    async def key(self, key: str) -> dict[str, Any]:
        """As `Publisher.key`."""
        found: dict[str, Any] = await self._call(Request("GET", f"keys/{part(key)}"))
        return found

    async def kick(self, key: str) -> int:
        """As `Publisher.kick`."""
        answer = await self._call(Request("DELETE", f"keys/{part(key)}/sessions"))
        return int(answer["closed"])

    async def rooms(self, limit: int = LIMIT, offset: int = 0) -> dict[str, Any]:
        """As `Publisher.rooms`."""
        found: dict[str, Any] = await self._call(Request("GET", "rooms", page(limit, offset)))
        return found

    async def room(self, room: str, limit: int = LIMIT, offset: int = 0) -> dict[str, Any]:
        """As `Publisher.room`."""
        found: dict[str, Any] = await self._call(
            Request("GET", f"rooms/{part(room)}", page(limit, offset))
        )
        return found

    async def nodes(self) -> dict[str, Any]:
        """As `Publisher.nodes`."""
        found: dict[str, Any] = await self._call(Request("GET", "nodes"))
        return found

    async def stats(self) -> dict[str, Any]:
        """As `Publisher.stats`."""
        found: dict[str, Any] = await self._call(Request("GET", "stats"))
        return found

    async def tokens(self, limit: int = LIMIT, offset: int = 0) -> dict[str, Any]:
        """As `Publisher.tokens`."""
        found: dict[str, Any] = await self._call(Request("GET", "tokens", page(limit, offset)))
        return found

    async def token(self, key: str) -> dict[str, Any]:
        """As `Publisher.token`."""
        found: dict[str, Any] = await self._call(Request("GET", f"tokens/{part(key)}"))
        return found

    async def create_token(
        self,
        key: str,
        *,
        token: str = "",
        expires_in: int | None = None,
        rooms: Sequence[str] | None = None,
    ) -> dict[str, Any]:
        """As `Publisher.create_token`."""
        found: dict[str, Any] = await self._call(new_token(key, token, expires_in, rooms))
        return found

    async def revoke_token(self, key: str) -> None:
        """As `Publisher.revoke_token`."""
        await self._call(Request("DELETE", f"tokens/{part(key)}"))
