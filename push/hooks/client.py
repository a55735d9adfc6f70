"""HTTP client for hooks: a bounded pool of connections, and a queue that is no longer than useful.

A storm of clients must not become a storm of requests. At most `HOOK_CONNECTIONS` calls run at a
time, on connections that are kept. Others wait in order of arrival. A call is refused at once if
the calls before it would take more than half of its time.
"""

import asyncio
import json
import logging
import math
import time
from collections.abc import Callable
from enum import StrEnum
from typing import Any, NamedTuple
from uuid import uuid4

import httpx

from imgo_site.conf import conf
from imgo_site.errors import Unavailable
from push.hooks.circuit_breaker import CircuitBreaker
from push.hooks.http import ANSWER_MAX, make_client, post
from push.hooks.signature import signed_headers
from push.metrics import definitions as metrics

logger = logging.getLogger(__name__)

FIRST_ESTIMATE = 0.05  # seconds that a call is expected to take before one has been measured
ESTIMATE_WEIGHT = 0.1  # of the latest call in the moving average
BROKEN = (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError)  # a kept connection ended
LOG_EVERY = 10.0  # seconds between two log lines about one hook's failures


class Hook(StrEnum):
    """A question to the backend."""

    AUTHENTICATE = "authenticate"
    AUTHORIZE_ROOM = "authorize_room"
    RECEIVE = "receive"

    @property
    def url(self) -> str:
        """Return the URL that the settings give this hook, "" for none."""
        return str(getattr(conf, f"{self.name}_URL"))


class Answer(NamedTuple):
    """The backend's answer. `body`: the JSON value, None for an empty body."""

    status: int
    body: Any


class _Failure(Exception):
    """A call without a usable answer. `outcome`: the label of its metric."""

    def __init__(self, outcome: str, reason: str) -> None:
        super().__init__(reason)
        self.outcome = outcome


class HookClient:
    """Client of one node, for its event loop."""

    def __init__(self) -> None:
        self._idle: list[httpx.AsyncClient] = []  # the one used last comes first
        self._free = asyncio.Semaphore(conf.HOOK_CONNECTIONS)
        self._waiting = 0
        self._seconds = FIRST_ESTIMATE  # moving average of a call's duration
        self._breakers = {hook: CircuitBreaker() for hook in Hook}
        self._logged = dict.fromkeys(Hook, 0.0)

    async def call(
        self, hook: Hook, data: dict[str, Any], is_gone: Callable[[], bool] = lambda: False
    ) -> Answer:
        """Return the backend's answer: any with a status of 2xx, 401 or 403, or 4xx for RECEIVE.

        `is_gone`: whether the client that waits for the answer has disconnected; the call is then
        not made.

        Raises `Unavailable` if there is no such answer within `HOOK_TIMEOUT` seconds.
        """
        begin = time.monotonic()
        try:
            answer = await self._call_in_turn(hook, data, is_gone)
        except _Failure as failure:
            metrics.HOOK_CALLS.labels(hook.value, failure.outcome).inc()
            self._log(hook, failure)
            raise Unavailable(f"The backend did not answer the hook {hook}.") from failure
        metrics.HOOK_CALLS.labels(hook.value, "answered").inc()
        metrics.HOOK_SECONDS.labels(hook.value).observe(time.monotonic() - begin)
        return answer

    def open_circuits(self) -> list[str]:
        """Return the hooks that are not called at the moment, because they kept failing."""
        return [hook.value for hook, breaker in self._breakers.items() if breaker.is_open]

    async def close(self) -> None:
        """Close the connections."""
        for http in self._idle:
            await http.aclose()

    async def _call_in_turn(
        self, hook: Hook, data: dict[str, Any], is_gone: Callable[[], bool]
    ) -> Answer:
        queue_max = conf.HOOK_CONNECTIONS * conf.HOOK_TIMEOUT / 2 / self._seconds
        if self._waiting >= max(queue_max, 1):
            raise _Failure("overloaded", "too many calls wait")
        begun = math.inf  # monotonic seconds
        try:
            async with asyncio.timeout(conf.HOOK_TIMEOUT):
                self._waiting += 1
                try:
                    await self._free.acquire()
                finally:
                    self._waiting -= 1
                try:
                    if is_gone():
                        raise _Failure("abandoned", "the client has disconnected")
                    if not self._breakers[hook].may_call():
                        raise _Failure("circuit_open", "it kept failing; it is tried again later")
                    begun = time.monotonic()
                    return await self._call(hook, data)
                finally:
                    self._free.release()
        except TimeoutError:
            # A call that waited for most of its time is no sign of a fault of the backend.
            if time.monotonic() - begun < conf.HOOK_TIMEOUT / 2:
                raise _Failure("overloaded", "no connection became free in time") from None
            self._breakers[hook].failed()
            raise _Failure("timeout", f"no answer within {conf.HOOK_TIMEOUT:g} s") from None

    async def _call(self, hook: Hook, data: dict[str, Any]) -> Answer:
        body = json.dumps(data, separators=(",", ":")).encode()
        request_id = f"msg_{uuid4().hex}"
        headers = signed_headers(conf.HOOK_SECRETS, request_id, int(time.time()), body)
        # One client for each connection: httpx examines all connections of a pool for each request.
        http = self._idle.pop() if self._idle else make_client(conf.HOOK_TIMEOUT, 1)
        begin = time.monotonic()
        try:
            try:
                answer = await post(http, hook.url, headers, body)
            except BROKEN:  # the backend had closed an idle connection; the id shows the repetition
                answer = await post(http, hook.url, headers, body)
        except httpx.HTTPError as error:
            self._breakers[hook].failed()
            reason = str(error) or type(error).__name__
            raise _Failure("unreachable", reason) from None
        finally:
            self._idle.append(http)
            passed = time.monotonic() - begin
            self._seconds += ESTIMATE_WEIGHT * (max(passed, 0.001) - self._seconds)
        return self._judge(hook, *answer)

    def _judge(self, hook: Hook, status: int, received: bytes) -> Answer:
        """Return a usable answer. Raises `_Failure` for others, and counts them."""
        is_usable = 200 <= status < 300 or status in (401, 403)
        if hook is Hook.RECEIVE:
            is_usable = is_usable or 400 <= status < 500
        problem = "" if is_usable else f"it answered with status {status}"
        value = None
        if len(received) > ANSWER_MAX:
            problem = problem or f"its answer has more than {ANSWER_MAX} bytes"
        elif received and 200 <= status < 300 and not problem:
            try:
                value = json.loads(received)
            except (ValueError, RecursionError):
                problem = "its answer is not JSON"
        if problem:
            self._breakers[hook].failed()
            raise _Failure("bad_answer", problem)
        self._breakers[hook].succeeded()
        return Answer(status, value)

    def _log(self, hook: Hook, failure: _Failure) -> None:
        """Log a failure, at most once in `LOG_EVERY` seconds for each hook."""
        now = time.monotonic()
        if failure.outcome != "abandoned" and now - self._logged[hook] > LOG_EVERY:
            self._logged[hook] = now
            logger.warning("the hook %s failed (%s): %s", hook, failure.outcome, failure)
