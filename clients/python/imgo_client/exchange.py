"""Retries of a call of the API: which request comes next, and when. Without I/O."""

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
    """Limits of the retries of one call.

    `attempts`: the highest number of attempts. `total`: seconds after the first attempt in which
    others may begin. `backoff`: the shortest and the longest pause between two attempts, in
    seconds, unless the server names a longer one.
    """

    attempts: int = 6
    total: float = 60.0
    backoff: tuple[float, float] = (0.2, 10.0)

    def __post_init__(self) -> None:
        check_pauses(self.backoff)
        if self.attempts < 1 or not self.total >= 0:
            raise ValueError("there is at least one attempt, and no time below zero")


@dataclass(frozen=True)
class Send:
    """An HTTP request for the driver to send. The driver sends its outcome into the generator."""

    path: str  # with the query
    content_type: str = ""
    content: bytes = b""
    method: str = "POST"


@dataclass(frozen=True)
class Wait:
    """A pause for the driver to make, in seconds."""

    seconds: float


@dataclass(frozen=True)
class Answer:
    """An HTTP answer. Names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    content: bytes


T = TypeVar("T")
E = TypeVar("E", bound=PublishError)
# What a driver runs: it carries out what is yielded, and sends the outcome of a `Send` back in.
Steps = Generator[Send | Wait, Answer | Exception | None, T]


def exchange(form: Form, pushes: Sequence[Push], retry: Retry) -> Steps[list[Result]]:
    """Push all pushes in one request, and repeat those that failed for a time.

    A generator. Its driver performs each `Send` or `Wait` that it yields. After a `Send` the driver
    sends in an `Answer`, or the exception of a failed connection; after a `Wait` nothing. Returns a
    result for each push. Raises `PublishError`.
    """
    attempts = Attempts(retry)
    results: dict[int, Result] = {}
    doubtful: set[int] = set()  # places whose outcome an attempt left open
    left = list(range(len(pushes)))
    while True:
        unsent = [pushes[place] for place in left]
        outcome = yield Send(form.path, form.content_type, form.write(unsent))
        got, error, after = _judge(form, unsent, outcome)
        results.update(zip(left, got))  # noqa: B905 - as many, or none
        doubtful.update(left if _is_doubtful(error) else [])
        doubtful.update(
            place for place in left if place in results and _is_doubtful(results[place].error)
        )
        # Only what the server says may succeed later: the rest has its answer.
        left = [place for place in left if place not in results or _may_retry(results[place])]
        if not left:
            break
        seconds = attempts.next_pause(after)
        if seconds is None:
            if error is not None:
                raise _in_doubt(error) if doubtful & set(left) else error
            break
        yield Wait(seconds)
    for place in doubtful:
        if (refused := results[place].error) is not None:
            results[place] = Result(0, pushes[place], _in_doubt(refused))
    return [results[place] for place in range(len(pushes))]


def _is_doubtful(error: PublishError | None) -> bool:
    """Return whether the server may have accepted the request in spite of this error."""
    if isinstance(error, ApiError):
        return isinstance(error, OutcomeUnknown) or error.status in (502, 504)
    return isinstance(error, Unreachable)


def _in_doubt(error: E) -> E | OutcomeUnknown:
    """Return an `Unavailable` as an `OutcomeUnknown`, because it is about only one attempt."""
    if not isinstance(error, Unavailable) or isinstance(error, OutcomeUnknown):
        return error
    return OutcomeUnknown({**error.problem, "code": "outcome_unknown"}, error.pushes)


def _may_retry(result: Result) -> bool:
    return result.error is not None and result.error.retry


def _judge(
    form: Form, pushes: list[Push], outcome: Answer | Exception | None
) -> tuple[list[Result], PublishError | None, float]:
    """Return the results, the error instead of them if a retry may help, and the server's pause.

    Raises an error that no retry can change.
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
    """Return the problem details of a refusal, or a substitute for an answer without them."""
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
    """Return the seconds of a Retry-After, a number or a date; 0 if it is missing or invalid."""
    if text.isdecimal() and len(text) < 10:
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (TypeError, ValueError, OverflowError):
        return 0.0


class Attempts:
    """Counter of the attempts and the time of one call."""

    def __init__(self, retry: Retry) -> None:
        self._retry = retry
        self._failed = 0
        self._end = time.monotonic() + retry.total

    def next_pause(self, after: float) -> float | None:
        """Return the seconds until the next attempt, at least `after`; None if none is left."""
        self._failed += 1
        jitter = random.random() * after / 4  # noqa: S311 - not all in the same second
        seconds = max(pause(self._failed, self._retry.backoff), after + jitter)
        is_over = time.monotonic() + seconds > self._end
        return None if is_over or self._failed >= self._retry.attempts else seconds
