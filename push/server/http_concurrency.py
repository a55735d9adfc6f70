"""Limit of concurrent HTTP requests of a node, with turns for each client.

Django gives each request under way a thread. With a thousand threads, the interpreter would give
the event loop one turn in a thousand, and all sessions of the node would wait. So at most `WORKING`
requests are processed at a time, and the others wait without a thread. Free places are given to
clients, by address, in turn. So a thousand requests of one client do not delay another client.
"""

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from imgo_site.addresses import HEADER, client_address
from imgo_site.errors import Unavailable
from imgo_site.prefix import without_prefix
from push.api.problems import error_response_at
from push.metrics import definitions as metrics
from push.probes import PATHS

WORKING = 24  # requests that are processed at the same time, each on a thread
WAITING_MAX = 200  # requests of one client that wait for a place; more are refused
REFUSAL = (
    f"{WAITING_MAX} requests of yours wait to be worked on. Nothing was accepted: send fewer at a "
    "time, and this one again."
)

Message = MutableMapping[str, Any]
Application = Callable[[dict[str, Any], Any, Any], Awaitable[None]]


class FairSemaphore:
    """Semaphore with `count` places. Waiters are served by client in turn, then by age."""

    def __init__(self, count: int = WORKING) -> None:
        self.free = count
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    async def take(self, client: str) -> None:
        """Wait for a place and take it."""
        if self.free > 0:
            self.free -= 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(client, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give_back()  # the place was assigned before the cancellation
            else:
                self._forget(client, turn)
            raise

    def give_back(self) -> None:
        """Release a place to the client whose turn is next."""
        while self._waiting:
            client, turns = self._waiting.popitem(last=False)
            turn = turns.popleft()
            if turns:
                self._waiting[client] = turns  # behind all others
            if not turn.done():
                turn.set_result(None)
                return
        self.free += 1

    def _forget(self, client: str, turn: "asyncio.Future[None]") -> None:
        turns = self._waiting.get(client)
        if turns is not None and turn in turns:
            turns.remove(turn)
            if not turns:
                del self._waiting[client]


class HttpConcurrency:
    """ASGI middleware that makes requests wait for a place. Probes need none."""

    def __init__(self, application: Application) -> None:
        self._application = application
        self._slots = FairSemaphore()
        self._waiting: Counter[str] = Counter()  # client → requests without a place yet

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Serve one request when its turn comes; refuse it if its client has too many waiting."""
        if without_prefix(scope["path"]) in PATHS:
            await self._application(scope, receive, send)
            return
        client = _client_of(scope)
        if self._waiting[client] >= WAITING_MAX + self._slots.free:
            await _refuse(scope["path"], send)
            return
        turn = _Turn(self._slots, self._waiting, client)

        async def receive_on() -> Message:
            message: Message = await receive()
            if message["type"] == "http.request" and not message.get("more_body"):
                await turn.begin()
            return message

        async def send_on(message: Message) -> None:
            turn.end()
            await send(message)

        try:
            await self._application(scope, receive_on, send_on)
        finally:
            turn.end()


class _Turn:
    """Place of one request, from the end of its body to the start of its response.

    A request needs no place while its client sends or reads, because no thread works for it then.
    """

    def __init__(self, slots: FairSemaphore, waiting: Counter[str], client: str) -> None:
        self._slots = slots
        self._waiting = waiting
        self._client = client
        self._waits = True
        self._has_place = False
        waiting[client] += 1

    async def begin(self) -> None:
        """Wait for a place and take it."""
        await self._slots.take(self._client)
        self._has_place = True
        self._stop_waiting()

    def end(self) -> None:
        """Release the place, or stop waiting for one. Further calls do nothing."""
        self._stop_waiting()
        if self._has_place:
            self._has_place = False
            self._slots.give_back()

    def _stop_waiting(self) -> None:
        if self._waits:
            self._waits = False
            self._waiting[self._client] -= 1
            if not self._waiting[self._client]:
                del self._waiting[self._client]


def _client_of(scope: dict[str, Any]) -> str:
    """Return the client's address; forwarded addresses count only from trusted proxies."""
    peer = (scope.get("client") or [""])[0]
    name = HEADER.encode()
    forwarded = b",".join(value for key, value in scope["headers"] if key == name)
    return client_address(peer, forwarded.decode("latin1"))


async def _refuse(path: str, send: Any) -> None:
    response = error_response_at(path, Unavailable(REFUSAL))
    metrics.REQUESTS_REFUSED.labels(str(response.status_code)).inc()
    response["Connection"] = "close"
    headers = [(k.lower().encode("latin1"), v.encode("latin1")) for k, v in response.items()]
    start = {"type": "http.response.start", "status": response.status_code, "headers": headers}
    await send(start)
    await send({"type": "http.response.body", "body": response.content})
