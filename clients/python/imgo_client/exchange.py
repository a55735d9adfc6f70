"""How often, when and with what a call is tried: the publishers' common part, without I/O."""

from __future__ import annotations

import random
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

from imgo_client.backoff import check_pauses, pause
from imgo_client.errors import (
    ApiError,
    BadAnswer,
    OutcomeUnknown,
    PublishError,
    Unavailable,
    Unreachable,
    api_error,
)
from imgo_client.frames import parse_json
from imgo_client.pushes import Form, Push, Result, results

AGAIN = frozenset({429, 502, 503, 504})  # statuses after which the same may succeed


@dataclass(frozen=True)
class Retry:
    """When to try again: at most so many `attempts`, none later than `total` seconds after the
    first, with a pause of `backoff` (the shortest, the longest) in between, or as long as the
    server asks for."""

    attempts: int = 6
    total: float = 60.0
    backoff: tuple[float, float] = (0.2, 10.0)

    def __post_init__(self) -> None:
        check_pauses(self.backoff)
        if self.attempts < 1 or not self.total >= 0:
            raise ValueError("there is at least one attempt, and no time below zero")


@dataclass(frozen=True)
class Send:
    """An HTTP request for the driver to send. Its outcome is sent back into the generator."""

    path: str  # with the query
    content_type: str = ""
    content: bytes = b""
    method: str = "POST"


@dataclass(frozen=True)
class Wait:
    """Do this: wait so many seconds."""

    seconds: float


@dataclass(frozen=True)
class Answer:
    """What came back. Names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    content: bytes


T = TypeVar("T")
E = TypeVar("E", bound=PublishError)
# What a driver runs: it carries out what is yielded, and sends the outcome of a `Send` back in.
Steps = Generator[Send | Wait, Answer | Exception | None, T]


def exchange(form: Form, pushes: Sequence[Push], retry: Retry) -> Steps[list[Result]]:
    """Push these in one request, and those that failed for a time again.

    Whoever drives it does what it yields, and sends in an `Answer`, or the exception of a
    connection that failed; after a `Wait`, nothing. It returns a result for each push. Raises
    `PublishError`.
    """
    attempts = Attempts(retry)
    found: dict[int, Result] = {}
    doubtful: set[int] = set()  # places whose outcome an attempt left open
    left = list(range(len(pushes)))
    while True:
        asked = [pushes[place] for place in left]
        outcome = yield Send(form.path, form.content_type, form.write(asked))
        got, error, after = _judge(form, asked, outcome)
        found.update(zip(left, got))  # noqa: B905 - as many, or none
        doubtful.update(left if _is_doubtful(error) else [])
        doubtful.update(
            place for place in left if place in found and _is_doubtful(found[place].error)
        )
        # Only what the server says may succeed later: the rest has its answer.
        left = [place for place in left if place not in found or _may_retry(found[place])]
        if not left:
            break
        seconds = attempts.next_pause(after)
        if seconds is None:
            if error is not None:
                raise _in_doubt(error) if doubtful & set(left) else error
            break
        yield Wait(seconds)
    for place in doubtful:
        if (refused := found[place].error) is not None:
            found[place] = Result(0, pushes[place], _in_doubt(refused))
    return [found[place] for place in range(len(pushes))]


def _is_doubtful(error: PublishError | None) -> bool:
    """Whether the server may have accepted what it answered with this error, or not at all."""
    if isinstance(error, ApiError):
        return isinstance(error, OutcomeUnknown) or error.status in (502, 504)
    return isinstance(error, Unreachable)


def _in_doubt(error: E) -> E | OutcomeUnknown:
    """Return the error of the last attempt, as unknown if it speaks only for that attempt."""
    if not isinstance(error, Unavailable) or isinstance(error, OutcomeUnknown):
        return error
    return OutcomeUnknown({**error.problem, "code": "outcome_unknown"}, error.pushes)


def _may_retry(result: Result) -> bool:
    return result.error is not None and result.error.retry


def _judge(
    form: Form, pushes: list[Push], outcome: Answer | Exception | None
) -> tuple[list[Result], PublishError | None, float]:
    """(results, the error instead of them if it may pass, the pause that the server asks for).

    Raises an error that will not pass.
    """
    whole = tuple(pushes)
    if not isinstance(outcome, Answer):
        return [], Unreachable(f"no answer: {describe(outcome)}", whole), 0.0
    after = retry_after(outcome.headers.get("retry-after", ""))
    if outcome.status in AGAIN:
        return [], api_error(problem_of(outcome), whole), after
    if outcome.status not in (200, 202):
        raise api_error(problem_of(outcome), whole)
    try:
        return results(form, outcome.content, pushes), None, after
    except ValueError:
        pass
    if outcome.content[:1] in (b"{", b"["):  # cut off on its way
        return [], Unreachable("the answer was cut off", whole), after
    raise BadAnswer(f"the answer ({outcome.status}) is not the API's", whole)


def describe(error: object) -> str:
    """Return an exception's type and text."""
    return f"{type(error).__name__} {error}".strip()


def problem_of(answer: Answer) -> dict[str, Any]:
    """The problem details of a refusal. Without them, as with a proxy's, it says so."""
    try:
        problem = parse_json(answer.content)
    except ValueError:
        problem = None
    if not isinstance(problem, dict) or not problem.keys() & {"code", "detail", "title"}:
        problem = {"title": _title_of(answer)}
    return {**problem, "status": answer.status}


def _title_of(answer: Answer) -> str:
    target = answer.headers.get("location", "")
    if 300 <= answer.status < 400 and target:
        return f"It redirects to {target!r}, which is not followed: is the URL right?"
    return "This answer is not the API's: is the URL right, and what is in front of the server?"


def retry_after(text: str) -> float:
    """Seconds, of a number or a date; 0 for nothing and for nonsense."""
    if text.isdecimal() and len(text) < 10:
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (TypeError, ValueError, OverflowError):
        return 0.0


class Attempts:
    """The attempts and the time that one call has used."""

    def __init__(self, retry: Retry) -> None:
        self._retry = retry
        self._failed = 0
        self._end = time.monotonic() + retry.total

    def next_pause(self, after: float) -> float | None:
        """Seconds until the next attempt, at least `after`; None when there is none."""
        self._failed += 1
        jitter = random.random() * after / 4  # noqa: S311 - not all in the same second
        seconds = max(pause(self._failed, self._retry.backoff), after + jitter)
        is_over = time.monotonic() + seconds > self._end
        return None if is_over or self._failed >= self._retry.attempts else seconds
