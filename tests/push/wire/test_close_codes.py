"""The table of close codes agrees with itself and with what a close frame can hold."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from push.wire import CloseCode, disconnect_body

from .strategies import any_text, proves

# RFC 6455, 5.5.1: a control frame holds 125 bytes, two of them the code.
WEBSOCKET_REASON_MAX = 123


def test_the_table_holds_the_agreed_numbers():
    assert {code.name: int(code) for code in CloseCode} == {
        "GOING_AWAY": 4000,
        "SLOW_READER": 4001,
        "HEARTBEAT_TIMEOUT": 4002,
        "HANDSHAKE_TIMEOUT": 4003,
        "INTERNAL_ERROR": 4011,
        "UNAVAILABLE": 4013,
        "UNAUTHORIZED": 4401,
        "EXPIRED": 4402,
        "REVOKED": 4403,
        "TOO_MANY_ATTEMPTS": 4428,
        "TOO_MANY_SESSIONS": 4429,
        "BAD_FRAME": 4500,
        "UNKNOWN_OP": 4501,
        "FRAME_TOO_LARGE": 4502,
        "REPLACED": 4503,
        "KICKED": 4504,
        "NOT_AUTHENTICATED": 4505,
        "ROOM_FORBIDDEN": 4506,
    }


@pytest.mark.parametrize("code", CloseCode)
def test_a_code_has_a_backoff_exactly_when_the_client_may_come_back(code):
    assert code.reconnect == (4000 <= code < 4500)
    assert (code.backoff > 0) == code.reconnect


@pytest.mark.parametrize("code", CloseCode)
def test_a_reason_fits_a_websocket_close_frame(code):
    assert 0 < len(code.reason.encode()) <= WEBSOCKET_REASON_MAX


def test_reasons_tell_codes_apart():
    assert len({code.reason for code in CloseCode}) == len(CloseCode)


def test_a_code_is_found_by_its_number():
    assert CloseCode(4429) is CloseCode.TOO_MANY_SESSIONS
    assert CloseCode(4429).backoff == 30


def test_disconnect_body_is_compact_json_with_the_reason_of_the_table():
    assert disconnect_body(4401) == (
        b'{"code":4401,"reason":"authentication failed","reconnect":true}'
    )


def test_disconnect_body_takes_another_reason():
    assert disconnect_body(CloseCode.KICKED, "bye") == (
        b'{"code":4504,"reason":"bye","reconnect":false}'
    )


@proves
@given(st.integers(4000, 4999), any_text)
def test_disconnect_body_is_json_for_any_code_and_reason(code, reason):
    body = json.loads(disconnect_body(code, reason))
    assert body["code"] == code
    assert body["reconnect"] == (code < 4500)
    if reason:
        # Compared as JSON text: two surrogates that meet in it become one character.
        assert json.dumps(body["reason"]) == json.dumps(reason)
