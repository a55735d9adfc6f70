"""Streams under several writers at once."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from offline.models import StreamMessage
from tests import call_and_close
from tests.offline.test_streams import assign, state

pytestmark = pytest.mark.django_db(transaction=True)


def test_two_transactions_never_give_one_offset_twice(imgo):
    imgo(ROOMS={"chat-*": {"history": 5}})

    def many(_: int) -> None:
        for _ in range(10):
            assign("chat-1", 3)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: call_and_close(many, n), range(4)))
    assert state("chat-1").top == 120
    found = StreamMessage.objects.order_by("offset").values_list("offset", flat=True)
    assert list(found)[-5:] == [116, 117, 118, 119, 120]
