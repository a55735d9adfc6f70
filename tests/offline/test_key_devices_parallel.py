"""A registration of a device and a push to its key at the same moment."""

import threading

import pytest
from django.db import connection, transaction

from offline.key_devices import register, register_new
from offline.models import KeyDevice, Pending
from offline.store import insert
from offline.values import NewMessage
from tests import PATIENCE, call_and_close, wait_until

pytestmark = pytest.mark.django_db(transaction=True)


def test_registration_waits_for_a_push_to_the_key(imgo):
    imgo(ACK_SCOPE={"*": "each"})
    register("a", "phone")
    begun, may_end = threading.Event(), threading.Event()

    def push() -> None:
        with transaction.atomic():
            insert([NewMessage(b"{}", 60.0, keys=("a",))])
            begun.set()
            may_end.wait(PATIENCE)

    threads = [
        threading.Thread(target=call_and_close, args=(push,)),
        threading.Thread(target=call_and_close, args=(register, "a", "laptop")),
    ]
    threads[0].start()
    begun.wait(PATIENCE)
    register("a", "phone")  # seen again: that waits for nothing
    # New devices of other keys do not wait for the push either.
    assert register_new([("a", "laptop"), ("b", "laptop")]) == {("b", "laptop")}
    threads[1].start()
    try:
        wait_until(_is_registration_waiting)
        assert not KeyDevice.objects.filter(key="a", name="laptop").exists()
    finally:
        may_end.set()
        for thread in threads:
            thread.join(PATIENCE)
    assert KeyDevice.objects.filter(key="a", name="laptop").exists()
    assert list(Pending.objects.values_list("device", flat=True)) == ["phone"]


def _is_registration_waiting() -> bool:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' "
            "AND datname = current_database() AND query LIKE '%%offline_keydevice%%'"
        )
        return bool(cursor.fetchone()[0])
