"""Senders that are killed before each step: once a device, and never after an acknowledgement."""

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from django.db import connection
from django.db.models.functions import Now

from offline import conservation, settlement
from offline.models import ACKNOWLEDGED, Event, Message
from offline.values import Receipt
from push import push_to_key
from push.devices.addresses import address_of
from push.devices.registration import register
from push.devices.tables import ClosingCursor, Notification
from tests import PATIENCE, fork_server

from .conftest import CONTENT
from .mobile_services import APPLE_PEM
from .turns import take_turns

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.long]

PROGRAM = Path(__file__).with_name("killed_sender.py")
ROOT = Path(__file__).parents[3]
STEPS_MAX = 60
SETTINGS = {
    "APNS_KEY": APPLE_PEM, "APNS_KEY_ID": "K", "APNS_TEAM_ID": "T", "APNS_TOPIC": "shop",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _devices(imgo) -> None:
    imgo(**SETTINGS)
    for number in (1, 2):
        register("u1", address_of("apns", None, f"{number:064x}"))


def push() -> int:
    return push_to_key("u1", 1, notify={**CONTENT, "tag": ""}, notify_after=0)


def acknowledge(message_id: int) -> None:
    settlement.record_receipts([Receipt(message_id, "u1", ACKNOWLEDGED, "n-1")])


def ends(step: int, provider: Path) -> bool:
    """Run the program; return whether it has ended before it would kill itself."""
    url = urlsplit(os.environ["DATABASE_URL"])._replace(path=f"/{connection.settings_dict['NAME']}")
    environment = {
        **os.environ,
        "DATABASE_URL": url.geturl(),
        "DJANGO_SETTINGS_MODULE": "imgo_site.settings",
        "PYTHONPATH": str(ROOT),
        **{f"IMGO_{name}": value for name, value in SETTINGS.items()},
    }
    command = [str(PROGRAM), str(step), str(provider)]
    done = fork_server.run(command, ROOT, environment, timeout=PATIENCE)
    assert done.returncode in (0, -9), done.stderr
    return done.returncode == 0


def recorded() -> Counter[str]:
    """What the ledger has, in the form of the provider's lines."""
    kinds = {"notified": "show", "notify_closed": "close"}
    rows = Event.objects.filter(kind__in=kinds).values_list("message_id", "session", "kind")
    return Counter(f"{message} {device} {kinds[kind]}" for message, device, kind in rows)


def forget() -> None:
    for model in (Notification, ClosingCursor, Event, Message):
        model.objects.all().delete()


def every_step(tmp_path: Path, check: Callable[[int, Counter[str]], None]) -> None:
    """Kill the sender before each of its steps, each time with rows of its own.

    A kill within a transaction is one before its commit.

    There are one message to show, one to close, and one that is acknowledged before it is due.
    `check` gets the message to show, and the requests whose answer was lost with the sender.
    """
    provider = tmp_path / "provider"
    for step in range(1, STEPS_MAX):
        provider.write_text("")
        read = push()
        take_turns(lambda _: None)
        acknowledge(read)
        waiting, early = push(), push()
        acknowledge(early)
        before = recorded()
        has_ended = ends(step, provider)
        sent = Counter(provider.read_text().split("\n")[:-1])
        lost = sent - (recorded() - before)
        Notification.objects.filter(attempts__gt=0).update(next_at=Now())  # its leases end
        check(waiting, lost)
        again: list[str] = []
        take_turns(again.append)
        total = sent + Counter(again)
        assert not [line for line in total if line.startswith(f"{early} ")], step
        assert set((total - lost).values()) <= {1}, (step, total, lost)
        assert set(recorded().values()) == {1}
        check_ends(read, waiting, again)
        assert conservation.balance_of_latest(0).missing == 0
        forget()
        if has_ended:
            assert step > 10
            return
    raise AssertionError("there are too many steps")


def check_ends(read: int, waiting: int, again: list[str]) -> None:
    """Each device has closed the message that was read; what waits is shown, if it still may."""
    found = recorded()
    assert sum(found[line] for line in found if line.startswith(f"{read} ")) == 4
    is_read = Event.objects.filter(message=waiting, kind=ACKNOWLEDGED).exists()
    shows = [line for line in again if line.startswith(f"{waiting} ") and line.endswith("show")]
    assert not (is_read and shows)
    if not is_read:
        assert sum(found[line] for line in found if line.startswith(f"{waiting} ")) == 2


def test_each_device_is_notified_once_unless_an_answer_was_lost(tmp_path) -> None:
    every_step(tmp_path, lambda *_: None)


def test_nothing_is_shown_after_an_acknowledgement_that_follows_a_kill(tmp_path) -> None:
    every_step(tmp_path, lambda waiting, _: acknowledge(waiting))
