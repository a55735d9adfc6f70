"""The operations are the protocol page's."""

from push.wire import Op


def test_every_operation_has_the_number_of_the_protocol_page():
    assert {op.name: op.value for op in Op} == {
        "HANDSHAKE": 0,
        "HANDSHAKE_REPLY": 1,
        "HEARTBEAT": 2,
        "HEARTBEAT_REPLY": 3,
        "SEND": 4,
        "MESSAGE": 5,
        "DISCONNECT": 6,
        "AUTH": 7,
        "AUTH_REPLY": 8,
        "RAW": 9,
        "CHANGE_ROOM": 12,
        "CHANGE_ROOM_REPLY": 13,
        "SUB": 14,
        "SUB_REPLY": 15,
        "UNSUB": 16,
        "UNSUB_REPLY": 17,
        "JOIN": 18,
        "JOIN_REPLY": 19,
        "LEAVE": 20,
        "LEAVE_REPLY": 21,
        "ACK": 22,
        "HISTORY": 24,
        "HISTORY_REPLY": 25,
        "PRESENCE": 26,
        "PRESENCE_REPLY": 27,
        "PRESENCE_DIFF": 28,
        "STREAM_GAP": 29,
        "RETRACTION": 30,
        "READ": 31,
        "PUBLISH": 32,
        "PUBLISH_REPLY": 33,
        "TEST": 254,
        "TEST_REPLY": 255,
    }


def test_a_reply_is_its_request_plus_one():
    for op in Op:
        if op.name.endswith("_REPLY"):
            assert Op[op.name.removesuffix("_REPLY")] == op - 1
