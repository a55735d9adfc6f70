"""Names of groups, and what crosses the layer."""

import re
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from offline.models import Message
from push.bus.envelope import close_envelope, echo_envelope, message_envelope
from push.bus.group_names import ALL, key_group, node_group, room_group

ALLOWED = re.compile(r"[A-Za-z0-9\-_.]{1,99}")


@given(st.text(st.characters(codec=None)))
def test_any_name_makes_a_group_that_the_layer_takes(name):
    assert ALLOWED.fullmatch(key_group(name))
    assert ALLOWED.fullmatch(room_group(name))


@given(st.text(), st.text())
def test_two_names_are_two_groups(one, other):
    groups = {
        ALL,
        node_group("n1"),
        *(make(n) for make in (key_group, room_group) for n in (one, other)),
    }
    assert len(groups) == (4 if one == other else 6)


def test_a_key_and_a_room_of_one_name_are_two_groups():
    assert key_group("all") != room_group("all") != ALL


def test_envelopes_are_plain_values():
    accepted = datetime(2026, 11, 26, tzinfo=UTC)
    row = Message(pk=7, op=5, body=memoryview(b"\0\xff"), is_json=False, created_at=accepted)
    assert message_envelope("g", row, "u1") == {
        "type": "imgo.message",
        "group": "g",
        "id": 7,
        "op": 5,
        "body": b"\0\xff",
        "is_json": False,
        "key": "u1",
        "ensure": False,
        "at": accepted.timestamp(),
    }
    assert echo_envelope("g", 1.5) == {"type": "imgo.echo", "group": "g", "sent": 1.5}
    assert close_envelope("g", ["s1"], 4504) == {
        "type": "imgo.close",
        "group": "g",
        "sessions": ["s1"],
        "code": 4504,
        "reason": "",
    }
