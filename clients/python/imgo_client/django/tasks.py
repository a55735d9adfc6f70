"""Celery task that runs the relay, for projects with `IMGO_CLIENT["RELAY"] = "celery"`.

A thread then requests it after commits. Also let Celery beat run it, such as every minute: for
pushes that were committed while the broker was unavailable, or that wait since an outage of imgo.
"""

from __future__ import annotations

from celery import shared_task

from imgo_client.django.conf import options
from imgo_client.django.running import Runner

DURATION = 50.0  # seconds that one task works at most; the next one goes on


@shared_task(name="imgo_client.relay", ignore_result=True)
def relay() -> None:
    """Send what is due, and return when nothing is left or the server takes nothing."""
    runner = Runner(options().POLL)
    try:
        runner.drain(DURATION)
    finally:
        runner.close_http()
