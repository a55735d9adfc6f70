"""Client of the HTTP API, written from its description alone."""

import json
import ssl
from typing import Any
from urllib.parse import quote

import httpx

from tests import NO_TLS

from .harness import logs

# Not longer than a server keeps an idle connection: a request on one that it closes is lost.
LIMITS = httpx.Limits(keepalive_expiry=1.0)


class Publisher:
    """Calls the HTTP API, ours and imgo's, with an API key."""

    def __init__(self, url: str, api_key: str, tls: ssl.SSLContext | None = None) -> None:
        self.http = httpx.AsyncClient(
            base_url=url,
            verify=tls or NO_TLS,
            headers={"Authorization": f"Api-Key {api_key}"},
            timeout=30,
            limits=LIMITS,
            trust_env=False,
        )

    async def close(self) -> None:
        """Close its connections."""
        await self.http.aclose()

    async def push(self, to: dict[str, Any], body: Any, **options: Any) -> int:
        """Push; `body` is JSON text as bytes, or a value. Returns the message's id."""
        content = encoded_push(to, body, **options)
        answer = await self.http.post("/api/v1/pushes", content=content)
        assert answer.status_code == 202, answer.text
        return int(answer.json()["id"])

    async def push_many(self, pushes: list[bytes]) -> list[int]:
        """Push an array of what `encoded_push` gave."""
        answer = await self.http.post("/api/v1/pushes", content=b"[%b]" % b",".join(pushes))
        assert answer.status_code == 202, answer.text
        return [int(item["id"]) for item in answer.json()]

    async def imgo(self, path: str, content: bytes = b"", **query: Any) -> Any:
        """POST to one of imgo's paths, which must succeed."""
        logs.forbid(content)
        answer = await self.http.post(path, params=query, content=content)
        assert (answer.status_code, answer.json()["ret"]) == (200, 1), answer.text
        return answer.json()

    async def get(self, path: str, **query: Any) -> Any:
        """GET; the answer's JSON."""
        answer = await self.http.get(path, params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def key(self, key: str) -> Any:
        """What the API knows of a key."""
        return await self.get(f"/api/v1/keys/{quote(key, safe='')}")

    async def pending(self, key: str) -> int:
        """How many messages are pending for a key."""
        return int((await self.key(key))["pending"])

    async def sessions(self, key: str) -> int:
        """How many sessions a key has."""
        return len((await self.key(key))["sessions"])

    async def rooms(self) -> dict[str, int]:
        """Rooms, and how many sessions are in each."""
        page = await self.get("/api/v1/rooms", limit=1000)
        return {row["room"]: row["sessions"] for row in page["results"]}

    async def make_token(self, key: str, **options: Any) -> str:
        """A new token for a key."""
        answer = await self.http.post("/api/v1/tokens", json={"key": key, **options})
        assert answer.status_code == 201, answer.text
        token: str = answer.json()["token"]
        logs.forbid(token)
        return token


def encoded_push(to: dict[str, Any], body: Any, **options: Any) -> bytes:
    """One push as the API wants it; `body` as bytes goes in as it is."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    logs.forbid(content)
    head = json.dumps({"to": to, **options})[:-1].encode()
    return b'%b,"body":%b}' % (head, content)
