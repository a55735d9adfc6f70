"""accept_push: what is refused, what is stored, what is enqueued and when, what is pushed once."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial

import pytest
from django.db import connection, transaction
from django.utils import timezone
from hypothesis import given, settings
from hypothesis import strategies as st

import push as push_package
from imgo_site.errors import BadRequest, TooLarge, Unavailable
from offline.models import Message, Outbox, Pending
from offline.partitions import partition_of
from push import push_to_all, push_to_key, push_to_keys, push_to_room
from push.accept.accept import Push, accept_push, accept_pushes, encode_body
from push.accept.frame_bodies import is_json
from push.metrics import definitions as metrics
from push.models import Dedupe
from push.wire import Op, encode_text
from tests import call_and_close, wait_until


def to(*keys: str, **fields) -> Push:
    return Push(b"{}", keys=keys, **fields)


def owed() -> list[tuple[int, str]]:
    return sorted(Pending.objects.values_list("message_id", "key"))


def waiting() -> list[tuple[int, int]]:
    """(message id, partition) of all that is to be fanned out."""
    return sorted(Outbox.objects.values_list("message_id", "partition"))


def elsewhere(function):
    """What `function` returns on a connection of its own: it sees what is committed."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(call_and_close, function).result()


A, R, ALL = (partition_of(name, 4) for name in ("a", "r", ""))


# What is refused


@pytest.mark.parametrize(
    "make",
    [
        lambda: to("a"),
        lambda: to(*[f"k{n}" for n in range(10_000)]),
        lambda: Push(b"{}", room="r"),
        lambda: Push(b"{}", to_all=True),
        lambda: to("a", op=1000),
        lambda: to("a", op=2**31 - 1),
        lambda: to("a", ttl=1),
        lambda: to("a", ttl=30 * 86_400),
        lambda: to("a", dedupe_id="x" * 255),
        lambda: Push(b"x" * 65_536, keys=("a",), is_json=False),
    ],
)
def test_a_good_push(make):
    assert isinstance(make(), Push)


@pytest.mark.parametrize(
    "make",
    [
        to,
        lambda: Push(b"{}", keys=("a",), room="r"),
        lambda: Push(b"{}", room="r", to_all=True),
        lambda: to(""),
        lambda: to("a", "b\0"),
        lambda: to("x" * 256),
        lambda: to("\ud800"),
        lambda: Push(b"{}", room="a\nb"),
        lambda: Push(b"", keys=("a",)),
        *(partial(to, "a", op=op) for op in (0, 4, 6, 9, 999, -1, 2**31)),
        *(partial(to, "a", ttl=ttl) for ttl in (0, -1, 30 * 86_400 + 1)),
        lambda: to("a", dedupe_id="a\0"),
        lambda: to("a", dedupe_id="x" * 256),
    ],
)
def test_a_push_that_makes_no_sense(make):
    with pytest.raises(BadRequest):
        make()


def test_a_push_above_a_limit(imgo):
    imgo(MAX_KEYS=2, MAX_BODY=3)
    to("a", "b")
    Push(b"123", keys=("a",))
    with pytest.raises(TooLarge, match="at most 2 keys; this one 3"):
        to("a", "b", "c")
    with pytest.raises(TooLarge, match="at most 3 bytes; this one 4"):
        Push(b"1234", keys=("a",))


@pytest.mark.django_db
def test_one_bad_push_and_none_is_accepted():
    with pytest.raises(BadRequest):
        accept_pushes([to("a"), to("b\0")])
    assert not Message.objects.exists()


# What is stored


@pytest.mark.django_db
def test_a_push_to_keys_is_pending_for_each():
    message = Message.objects.get(pk=accept_push(to("a", "b", op=1001), "shop"))
    assert owed() == [(message.pk, "a"), (message.pk, "b")]
    assert bytes(message.body) == b"{}"
    assert (message.audience, message.op, message.by) == ("keys", 1001, "shop")
    assert (message.stored, message.keys, message.is_json) == (True, ["a", "b"], True)


@pytest.mark.django_db
def test_a_key_that_is_named_twice_gets_it_once():
    one = accept_push(to("a", "b", "a"))
    assert owed() == [(one, "a"), (one, "b")]
    live = accept_push(to("a", "b", "a", store=False))
    assert sorted(Message.objects.get(pk=live).keys) == ["a", "b"]


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("push", "audience", "room", "keys"),
    [
        (Push(b"1", room="r"), "room", "r", None),
        (Push(b"1", to_all=True), "all", "", None),
        (to("a", "b", store=False), "keys", "", ["a", "b"]),
    ],
)
def test_what_is_live_only_is_pending_for_nobody(push, audience, room, keys):
    message = Message.objects.get(pk=accept_push(push))
    assert owed() == []
    assert (message.audience, message.room, message.keys) == (audience, room, keys)
    assert not message.stored


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("push", "seconds"),
    [
        (to("a"), 3600),
        (to("a", ttl=7), 7),
        (to("a", store=False), 60),
        (Push(b"1", room="r"), 60),
        (Push(b"1", room="r", ttl=7), 7),
    ],
)
def test_a_message_lives_as_long_as_the_push_or_the_setting_says(imgo, push, seconds):
    imgo(TTL=3600, LIVE_TTL=60)
    message = Message.objects.get(pk=accept_push(push))
    assert message.expires_at - message.created_at == timedelta(seconds=seconds)
    assert abs(message.created_at - timezone.now()) < timedelta(seconds=30)


@pytest.mark.django_db
def test_ids_are_in_the_order_of_the_pushes():
    ids = accept_pushes([to(f"k{n}") for n in range(450)])
    assert ids == sorted(set(ids))
    assert owed() == [(message, f"k{n}") for n, message in enumerate(ids)]
    assert accept_push(to("a")) > ids[-1]


@pytest.mark.django_db
def test_no_pushes_are_no_ids(queued, django_capture_on_commit_callbacks):
    with django_capture_on_commit_callbacks(execute=True):
        assert accept_pushes([]) == []
    assert queued() == set()


# What is to be fanned out, and when the workers hear of it


@pytest.mark.django_db
@pytest.mark.any_database
def test_a_push_waits_in_the_outbox_of_each_of_its_partitions(imgo):
    keys = [f"k{n}" for n in range(50)]
    ids = accept_pushes([to(*keys), to("a"), Push(b"1", room="r"), Push(b"1", to_all=True)])
    assert waiting() == [
        *((ids[0], partition) for partition in range(4)),
        (ids[1], A),
        (ids[2], R),
        (ids[3], ALL),
    ]
    assert set(Outbox.objects.values_list("partitions", flat=True)) == {4}
    imgo(PARTITIONS=1)
    last = accept_push(to(*keys))
    assert waiting()[-1] == (last, 0)


@pytest.mark.django_db(transaction=True)
def test_when_it_returns_it_is_committed_and_its_partitions_are_woken(queued):
    ids = accept_pushes([to("a"), Push(b"1", room="r")])
    assert elsewhere(waiting) == [(ids[0], A), (ids[1], R)]
    assert queued() == {A, R}


@pytest.mark.django_db(transaction=True)
def test_inside_a_transaction_nothing_leaves_before_the_commit(queued):
    with transaction.atomic():
        first = push_to_key("a", 1)
        second = push_to_room("r", 2)
        assert queued() == set()
        assert elsewhere(waiting) == []
    assert queued() == {A, R}
    assert waiting() == [(first, A), (second, R)]


@pytest.mark.django_db(transaction=True)
def test_what_is_rolled_back_was_never_pushed(queued):
    counted = metrics.PUSHES.labels("key")._value.get()
    with transaction.atomic():
        push_to_key("a", 1, dedupe_id="d")
        transaction.set_rollback(True)
    assert queued() == set()
    assert not Message.objects.exists()
    assert not Dedupe.objects.exists()
    assert waiting() == []
    assert metrics.PUSHES.labels("key")._value.get() == counted
    again = push_to_key("a", 1, dedupe_id="d")
    assert metrics.PUSHES.labels("key")._value.get() == counted + 1
    assert queued() == {A}
    assert waiting() == [(again, A)]


@pytest.mark.django_db(transaction=True)
def test_a_push_that_fails_does_not_spoil_the_transaction_around_it(queued):
    with transaction.atomic():
        with pytest.raises(BadRequest):
            push_to_key("a\0", 1)
        kept = push_to_key("a", 1)
    assert waiting() == [(kept, A)]
    assert queued() == {A}


@pytest.mark.django_db(transaction=True)
def test_many_pushes_are_one_statement(django_assert_num_queries):
    with django_assert_num_queries(1):
        accept_pushes([to(f"k{n}") for n in range(400)])


# Pushed once


@pytest.mark.django_db
@pytest.mark.any_database
def test_the_same_dedupe_id_is_the_same_push():
    first = accept_push(to("a", dedupe_id="d"), "shop")
    assert accept_push(to("other", dedupe_id="d"), "shop") == first
    assert owed() == [(first, "a")]


@pytest.mark.django_db(transaction=True)
def test_a_repeated_push_is_not_fanned_out_again(queued):
    first = accept_push(to("a", dedupe_id="d"))
    assert queued() == {A}
    accept_push(to("a", dedupe_id="d"))
    assert queued() == set()
    assert waiting() == [(first, A)]


@pytest.mark.django_db
@pytest.mark.any_database
def test_dedupe_ids_are_the_callers_own():
    first = accept_push(to("a", dedupe_id="d"), "shop")
    assert accept_push(to("a", dedupe_id="d"), "other") != first
    assert accept_push(to("a", dedupe_id="D"), "shop") != first


@pytest.mark.django_db
@pytest.mark.any_database
def test_the_same_dedupe_id_twice_in_an_array():
    known = accept_push(to("k", dedupe_id="known"))
    ids = accept_pushes(
        [
            to("a", dedupe_id="x"),
            to("b"),
            to("c", dedupe_id="known"),
            to("d", dedupe_id="x"),
            to("e"),
            to("f", dedupe_id="y"),
        ]
    )
    a, b, c, d, e, f = ids
    assert a == d
    assert c == known
    assert len({a, b, c, e, f}) == 5
    assert owed() == [(known, "k"), (a, "a"), (b, "b"), (e, "e"), (f, "f")]
    assert a < b < e < f


@pytest.mark.django_db
@pytest.mark.any_database
def test_a_dedupe_id_can_be_used_again_after_its_window(imgo):
    imgo(DEDUPE_WINDOW=60)
    first = accept_push(to("a", dedupe_id="d"))
    almost = timezone.now() - timedelta(seconds=50)
    Dedupe.objects.update(created_at=almost)
    assert accept_push(to("a", dedupe_id="d")) == first
    Dedupe.objects.update(created_at=almost - timedelta(seconds=20))
    second = accept_push(to("a", dedupe_id="d"))
    assert second != first
    assert accept_push(to("a", dedupe_id="d")) == second


@pytest.mark.django_db
@pytest.mark.any_database
def test_what_is_older_than_the_window_is_forgotten(imgo):
    imgo(DEDUPE_WINDOW=60)
    accept_push(to("a", dedupe_id="old"))
    Dedupe.objects.update(created_at=timezone.now() - timedelta(seconds=61))
    accept_push(to("a", dedupe_id="new"))
    assert Dedupe.objects.forget() == 1
    assert Dedupe.objects.get().dedupe_id == "new"


def in_parallel(count: int, accept) -> list:
    """What `accept(n)` returns or raises, called on `count` threads at the same moment."""
    together = threading.Barrier(count)
    results = [None] * count

    def call(n: int) -> None:
        together.wait(30)
        try:
            results[n] = accept(n)
        except Exception as error:  # noqa: BLE001 - it is compared with what was expected
            results[n] = error

    threads = [threading.Thread(target=call_and_close, args=(call, n)) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


@pytest.mark.django_db(transaction=True)
def test_fifty_at_once_with_the_same_dedupe_id_are_one_push():
    ids = in_parallel(50, lambda _: accept_push(to("a", dedupe_id="d"), "shop"))
    assert len(set(ids)) == 1
    assert owed() == [(ids[0], "a")]
    assert waiting() == [(ids[0], A)]


@pytest.fixture
def slow_inserts(transactional_db):
    """Each row of a dedupe id takes a moment to insert, so that two statements overlap."""
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN PERFORM pg_sleep(0.05); RETURN NEW; END $$;"
            "CREATE TRIGGER slow BEFORE INSERT ON push_dedupe"
            " FOR EACH ROW EXECUTE FUNCTION dawdle()"
        )
    yield
    with connection.cursor() as cursor:
        cursor.execute("DROP FUNCTION dawdle() CASCADE")


def test_arrays_at_once_with_the_same_dedupe_ids_in_any_order(slow_inserts):
    names = ["d1", "d2", "d3", "d4"]

    def accept(n: int) -> dict[str, int]:
        mine = names if n % 2 else names[::-1]
        return dict(zip(mine, accept_pushes([to("a", dedupe_id=d) for d in mine]), strict=True))

    first, second = in_parallel(2, accept)
    assert first == second
    assert Message.objects.count() == len(names)


# When a service is away


def test_without_the_database_nothing_is_accepted(database_down, queued):
    with pytest.raises(Unavailable):
        accept_push(to("a", dedupe_id="d"))
    assert queued() == set()
    database_down()
    assert not Message.objects.exists()
    one = accept_push(to("a", dedupe_id="d"))
    assert queued() == {A}
    assert waiting() == [(one, A)]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    "push", [to("a"), to("a", store=False), Push(b"1", room="r"), Push(b"1", to_all=True)]
)
def test_without_the_broker_a_push_is_accepted_and_waits(broker_down, push):
    one = accept_push(push)
    (row,) = waiting()
    assert row[0] == one


@pytest.mark.django_db(transaction=True)
def test_when_the_broker_is_back_the_workers_hear_of_what_waits(broker_down, queued, caplog):
    accept_push(to("a"))
    wait_until(lambda: "the workers cannot be woken" in caplog.text)
    broker_down()  # it is back
    assert queued() == {A}
    assert not any(record.exc_info for record in caplog.records)


@pytest.mark.django_db(transaction=True)
def test_without_the_broker_a_repeated_push_has_the_first_id(broker_down):
    push = Push(b"1", room="r", dedupe_id="d")
    first = accept_push(push)
    again, other = accept_pushes([push, Push(b"2", room="r", dedupe_id="new")])
    assert again == first
    assert waiting() == [(first, R), (other, R)]


@pytest.mark.django_db(transaction=True)
def test_without_the_broker_the_transaction_around_a_push_still_commits(broker_down):
    with transaction.atomic():
        one = push_to_key("a", 1)
    assert owed() == [(one, "a")]
    assert waiting() == [(one, A)]


# The Python calls


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("call", "audience"),
    [
        (lambda: push_to_key("a", {"n": 1}), "keys"),
        (lambda: push_to_keys(iter(["a", "b"]), {"n": 1}), "keys"),
        (lambda: push_to_room("r", {"n": 1}), "room"),
        (lambda: push_to_all({"n": 1}), "all"),
    ],
)
def test_the_python_calls(call, audience):
    message = Message.objects.get(pk=call())
    assert message.audience == audience
    assert bytes(message.body) == b'{"n":1}'
    assert message.by == "python"


@pytest.mark.django_db
def test_the_python_calls_take_options():
    one = push_to_key("a", b"\xff", op=1000, ttl=9, store=False, by="shop", dedupe_id="d")
    message = Message.objects.get(pk=one)
    assert (message.op, message.is_json, message.by) == (1000, False, "shop")
    assert message.keys == ["a"]
    assert message.expires_at - message.created_at == timedelta(seconds=9)
    assert Dedupe.objects.get().message_id == one


@pytest.mark.django_db
def test_a_caller_has_a_name_that_fits():
    with pytest.raises(BadRequest):
        push_to_key("a", 1, by="x" * 101)


def test_an_option_that_does_not_exist_is_a_mistake():
    with pytest.raises(TypeError):
        push_to_key("a", 1, tll=5)


def test_the_package_offers_the_calls_and_nothing_else():
    assert push_package.push_to_key is push_to_key
    with pytest.raises(AttributeError):
        _ = push_package.push_to_nobody


@pytest.mark.parametrize(
    ("body", "data", "json_text"),
    [
        ({"a": [1, 2.5, None, True]}, b'{"a":[1,2.5,null,true]}', True),
        ("ä", '"ä"'.encode(), True),
        (None, b"null", True),
        ("", b'""', True),
        ("half \ud83d", b'"half \\ud83d"', True),
        (b'{"a": 1}', b'{"a": 1}', True),
        (b"not json", b"not json", False),
        (b"\xff", b"\xff", False),
        (b"NaN", b"NaN", False),
        (b"", b"", False),
    ],
)
def test_a_body_becomes_bytes(body, data, json_text):
    assert encode_body(body) == (data, json_text)


class Loop(list):
    def __init__(self) -> None:
        self.append(self)


@pytest.mark.parametrize(
    "body",
    [float("nan"), float("inf"), {1, 2}, object(), {"a": b"x"}, {(1,): 2}, Loop(), timezone.now()],
    ids=range(8),  # an object's address and the time would be other names every time
)
def test_what_json_cannot_express_is_a_bad_request(body):
    with pytest.raises(BadRequest, match="cannot be written as JSON"):
        encode_body(body)


def test_a_number_with_thousands_of_digits_is_a_bad_request_or_json():
    try:
        data, json_text = encode_body(10**5000)
    except BadRequest:
        return
    assert json_text is is_json(data)


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        (b"1", True),
        (b' {"a":1} ', True),
        ('"ä"'.encode(), True),
        (b'"\xe4"', False),
        (b"", False),
        (b"abc", False),
        (b"-Infinity", False),
        (b"[1,]", False),
        (b"\xef\xbb\xbf1", False),
        (b"[" * 100_000, False),
        (b"1" * 5000, False),
        (b"1e999", True),  # though infinity to most readers
    ],
    ids=lambda value: repr(value)[:30],
)
def test_is_json(body, answer):
    assert is_json(body) is answer


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@settings(deadline=None)
@given(json_values)
def test_any_json_value_comes_back_or_is_a_bad_request(value):
    try:
        data, json_text = encode_body(value)
    except BadRequest:
        assert "NaN" in json.dumps(value) or "Infinity" in json.dumps(value)
        return
    assert json_text
    assert is_json(data)
    assert json.loads(data) == value


@settings(deadline=None)
@given(st.binary() | json_values.map(lambda value: json.dumps(value).encode()))
def test_what_is_json_can_stand_in_a_text_frame(data):
    if is_json(data):
        (frame,) = json.loads(encode_text(Op.MESSAGE, 0, data))
        assert frame["body"] == json.loads(data)
