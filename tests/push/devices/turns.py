"""Turns of a sender without its loop, for tests and for the program that is killed."""

from collections.abc import Callable

from offline.event_feed import newest_id
from push.devices import closings
from push.devices.jobs import Job, Outcome, Result
from push.devices.sender import step

TURNS = 3


class Watch(closings.Watch):
    """A watch for which all events are visible: nothing else runs."""

    def step(self) -> None:
        closings.mark(newest_id())


def take_turns(send: Callable[[str], None]) -> None:
    """Send and close all that is due; `send` gets `<message> <device> show` or `... close`."""
    results: list[tuple[Job, Result]] = []
    for _ in range(TURNS):
        jobs = step(results, {"apns": 10}, Watch())
        for job in jobs:
            send(f"{job.message_id} {job.device_id} {'close' if job.closes else 'show'}")
        results = [(job, Result(Outcome.SENT)) for job in jobs]
    step(results, {}, Watch())
