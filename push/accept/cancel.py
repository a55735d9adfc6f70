"""Cancellation of pushes, for the API and for commands, and the drops that it counts."""

from dataclasses import dataclass
from functools import partial
from typing import Literal

from django.db import transaction

from imgo_site.errors import NotFound
from offline import cancellation
from push.accept.worker_wakeups import wake
from push.metrics import definitions as metrics

State = Literal["cancelled", "partly", "too_late"]


@dataclass(frozen=True, slots=True)
class Cancellation:
    """Outcome of the cancellation of a push.

    `cancelled`, `too_late`: numbers of keys; both 0 for a push that is not stored for keys.
    `state`: "cancelled", "partly" or "too_late".
    """

    message_id: int
    state: State
    cancelled: int
    too_late: int


def cancel_push(push_id: int, by: str | None = None) -> Cancellation:
    """Cancel what is still scheduled or pending of a push.

    `by`: the caller, who must have pushed it; None: any.

    Sessions that ask for it are told to take the message back. A call that was cut off is completed
    by the next one.

    Raises `NotFound` without a record, `Forbidden` for another caller's push, `Unavailable`.
    """
    cancelled = cancellation.cancel(push_id, by)
    if cancelled is None:
        raise NotFound(f"There is no record of push {push_id}.")
    if cancelled.new_keys or cancelled.stopped:
        metrics.DROPS.labels("cancelled").inc(cancelled.new_keys or 1)
    if cancelled.retracted:
        transaction.on_commit(partial(wake, cancelled.retracted))
    late = cancelled.message.recipients - cancelled.keys
    state: State
    if cancelled.message.recipients:
        state = "cancelled" if not late else "partly" if cancelled.keys else "too_late"
    else:
        state = "cancelled" if cancelled.message.cancelled_at else "too_late"
        state = "partly" if cancelled.erased else state
    return Cancellation(cancelled.message.pk, state, cancelled.keys, late)
