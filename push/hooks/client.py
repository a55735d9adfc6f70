"""HTTP client for hooks: a bounded pool of connections, and a queue that is no longer than useful.

A storm of clients must not become a storm of requests. At most `HOOK_CONNECTIONS` calls run at a
time, on connections that are kept. Others wait in order of arrival, for half of their time at most.
A call is refused at once if the calls before it would take longer.
"""

import asyncio
import json
import logging
import time
from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import uuid4

from imgo_site.conf import conf
from imgo_site.errors import BackendUnavailable, BadRequest, Overloaded
from push.hooks.circuit_breaker import CircuitBreaker
from push.hooks.figures import ABANDONED, ANSWERED, HookFigures
from push.hooks.responses import ANSWER_MAX, NoResponse, Response, client_class
from push.hooks.signature import signed_headers
from push.metrics import definitions as metrics

if TYPE_CHECKING:
    from push.hooks.http import HttpClient

logger = logging.getLogger(__name__)

FIRST_ESTIMATE = 0.05  # seconds that a call is expected to take before one has been measured
ESTIMATE_WEIGHT = 0.1  # of the latest call in the moving average
BAD_SIGNATURE = "bad_signature"  # the `code` of an answer to a request that is not signed right
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
    """The backend's answer.

    `body`: the JSON value, None for an empty body. Of a refusal, its JSON object, {} for none.
    `said`: the text of a refusal, "" for none.
    """

    status: int
    body: Any
    said: str = ""


class _Failure(Exception):
    """A call without a usable answer. `outcome`: the label of its metric."""

    def __init__(self, outcome: str, reason: str) -> None:
        super().__init__(reason)
        self.outcome = outcome


class HookClient:
    """Client of one node, for its event loop."""

    def __init__(self) -> None:
        if any(hook.url for hook in Hook):
            client_class()
        self._http: HttpClient | None = None  # made by the first call, on the node's loop
        self._free = asyncio.Semaphore(conf.HOOK_CONNECTIONS)
        self._waiting = 0
        self._seconds = FIRST_ESTIMATE  # moving average of a call's duration
        self._breakers = {hook: CircuitBreaker() for hook in Hook}
        self._figures = {hook: HookFigures() for hook in Hook}
        self._logged = dict.fromkeys(Hook, 0.0)

    async def call(
        self,
        hook: Hook,
        data: dict[str, Any],
        is_gone: Callable[[], bool] = lambda: False,
        check: Callable[[Any], None] = lambda _: None,
    ) -> Answer:
        """Return the backend's answer: any with a status of 2xx, 401 or 403, or 4xx for RECEIVE.

        `is_gone`: whether the client that waits for the answer has disconnected; the call is then
        not made.
        `check`: gets the body of an answer of 2xx, and raises `BadRequest` if it is not usable.

        Raises `BackendUnavailable` if there is no such answer within `HOOK_TIMEOUT` seconds, and
        `Overloaded` if too many calls wait.
        """
        begin = time.monotonic()
        try:
            answer = await self._call_in_turn(hook, data, is_gone, check)
        except _Failure as failure:
            self._count(hook, failure.outcome)
            self._log(hook, failure)
            if failure.outcome == "overloaded":
                raise Overloaded from failure
            raise BackendUnavailable(
                f"The backend gave no usable answer to the hook {hook}."
            ) from failure
        self._count(hook, ANSWERED, time.monotonic() - begin)
        return answer

    def open_circuits(self) -> list[str]:
        """Return the hooks that are not called at the moment, because they kept failing."""
        return [hook.value for hook, breaker in self._breakers.items() if breaker.is_open]

    def figures(self) -> dict[str, HookFigures]:
        """Return the figures of each hook that has a URL."""
        opened = self.open_circuits()
        return {
            hook.value: self._figures[hook].copy(is_open=hook.value in opened)
            for hook in Hook
            if hook.url
        }

    async def close(self) -> None:
        """Close the connections."""
        if self._http is not None:
            await self._http.close()

    def _count(self, hook: Hook, outcome: str, seconds: float | None = None) -> None:
        """Count a call. `seconds`: how long an answered one took, None for others."""
        metrics.HOOK_CALLS.labels(hook.value, outcome).inc()
        self._figures[hook].count(outcome, seconds)
        if seconds is not None:
            metrics.HOOK_SECONDS.labels(hook.value).observe(seconds)

    async def _call_in_turn(
        self,
        hook: Hook,
        data: dict[str, Any],
        is_gone: Callable[[], bool],
        check: Callable[[Any], None],
    ) -> Answer:
        queue_max = conf.HOOK_CONNECTIONS * conf.HOOK_TIMEOUT / 2 / self._seconds
        if self._waiting >= max(queue_max, 1):
            raise _Failure("overloaded", "too many calls wait")
        deadline = asyncio.get_running_loop().time() + conf.HOOK_TIMEOUT
        await self._wait_for_turn(conf.HOOK_TIMEOUT / 2)
        try:
            if is_gone():
                raise _Failure(ABANDONED, "the client has disconnected")
            if not self._breakers[hook].may_call():
                raise _Failure("circuit_open", "it kept failing; it is tried again later")
            async with asyncio.timeout_at(deadline):
                return await self._call(hook, data, check)
        except TimeoutError:
            self._breakers[hook].failed()
            raise _Failure("timeout", f"no answer within {conf.HOOK_TIMEOUT:g} s") from None
        finally:
            self._free.release()

    async def _wait_for_turn(self, seconds: float) -> None:
        """Take one of the connections; the caller releases it.

        A call that waits longer is not made. Otherwise it would soon run out of time, and the
        backend would still work for it while its connection passes to the next call.
        """
        self._waiting += 1
        try:
            async with asyncio.timeout(seconds):
                await self._free.acquire()
        except TimeoutError:
            raise _Failure("overloaded", "no connection became free in time") from None
        finally:
            self._waiting -= 1

    async def _call(self, hook: Hook, data: dict[str, Any], check: Callable[[Any], None]) -> Answer:
        body = json.dumps(data, separators=(",", ":")).encode()
        request_id = f"msg_{uuid4().hex}"
        headers = signed_headers(conf.HOOK_SECRETS, request_id, int(time.time()), body)
        if self._http is None:
            self._http = client_class()(conf.HOOK_CONNECTIONS)
        begin = time.monotonic()
        try:
            response = await self._http.post(hook.url, headers, body)
        except NoResponse as error:
            self._breakers[hook].failed()
            raise _Failure("unreachable", error.reason) from None
        finally:
            passed = time.monotonic() - begin
            self._seconds += ESTIMATE_WEIGHT * (max(passed, 0.001) - self._seconds)
        return self._judge(hook, response, check)

    def _judge(self, hook: Hook, response: Response, check: Callable[[Any], None]) -> Answer:
        """Return a usable answer. Raises `_Failure` for others, and counts them."""
        problem = self._problem_of_status(hook, response)
        value: Any = response.problem if response.status >= 400 else None
        if not problem and 200 <= response.status < 300:
            try:
                value = _value(response)
                check(value)
            except BadRequest as error:
                problem = f"its answer cannot be used: {error.message}"
        if problem:
            self._breakers[hook].failed()
            raise _Failure("bad_answer", problem)
        self._breakers[hook].succeeded()
        return Answer(response.status, value, response.said)

    @staticmethod
    def _problem_of_status(hook: Hook, response: Response) -> str:
        status = response.status
        if response.problem.get("code") == BAD_SIGNATURE:
            return f"it refused imgo's signature: {response.said or BAD_SIGNATURE}"
        is_refusal = 400 <= status < 500 if hook is Hook.RECEIVE else status in (401, 403)
        return "" if 200 <= status < 300 or is_refusal else response.status_text

    def _log(self, hook: Hook, failure: _Failure) -> None:
        """Log a failure, at most once in `LOG_EVERY` seconds for each hook."""
        now = time.monotonic()
        if failure.outcome != ABANDONED and now - self._logged[hook] > LOG_EVERY:
            self._logged[hook] = now
            logger.warning("the hook %s failed (%s): %s", hook, failure.outcome, failure)


def _value(response: Response) -> Any:
    """Return the JSON value of a body, None for an empty one. Raises `BadRequest`."""
    if len(response.body) > ANSWER_MAX:
        raise BadRequest(f"It has more than {ANSWER_MAX} bytes.")
    if not response.body:
        return None
    try:
        return json.loads(response.body)
    except (ValueError, RecursionError):
        coding = f", and has the content coding {response.coding[:50]!r}" if response.coding else ""
        raise BadRequest(f"It is not JSON{coding}.") from None
