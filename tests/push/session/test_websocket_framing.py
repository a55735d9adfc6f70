"""WebSocket framing: messages out of any cut of any frames, pings, closes, and the pool."""

import base64
import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.datastructures import Headers
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import CLIENT, Protocol
from websockets.server import ServerProtocol

from push.session.websocket_framing import (
    POOL_MAX,
    Framing,
    FramingPool,
    answer_upgrade,
    packet,
    refuse_upgrade,
)

MAX = 300  # bytes of a message


def masked(opcode: Opcode, data: bytes, *, fin: bool = True) -> bytes:
    return Frame(opcode, data, fin=fin).serialize(mask=True)


def closed_with(framing: Framing) -> int:
    """The code of the close frame that has to be sent."""
    out = framing.out()
    assert out[0] == 0x88
    return int.from_bytes(out[2:4], "big")


@pytest.fixture
def framing():
    return Framing(MAX)


texts = st.text(max_size=60)
contents = texts | st.binary(max_size=200)


def fragments(content: str | bytes, places: list[int]) -> bytes:
    """The frames of one message, cut at these places, with a ping between two of them."""
    data = content.encode() if isinstance(content, str) else content
    first = Opcode.TEXT if isinstance(content, str) else Opcode.BINARY
    cuts = sorted({place % (len(data) + 1) for place in places})
    edges = [0, *cuts, len(data)]
    parts = [data[a:b] for a, b in pairwise(edges)]
    found = b""
    for n, part in enumerate(parts):
        opcode = first if n == 0 else Opcode.CONT
        found += masked(opcode, part, fin=n == len(parts) - 1)
        found += masked(Opcode.PING, b"") if n == 0 else b""
    return found


@settings(deadline=None)
@given(
    st.lists(st.tuples(contents, st.lists(st.integers(0, 500), max_size=3)), max_size=5),
    st.lists(st.integers(1, 60), min_size=1, max_size=20),
)
def test_any_cut_of_any_frames_gives_the_messages(sent, sizes):
    framing = Framing(MAX)
    data = b"".join(fragments(content, places) for content, places in sent)
    got = []
    n = 0
    while data:
        size = sizes[n % len(sizes)]
        got += framing.feed(data[:size])
        data, n = data[size:], n + 1
    assert got == [content for content, _ in sent]
    assert framing.is_idle
    assert framing.out() == b"\x8a\x00" * len(sent)


@settings(deadline=None)
@given(contents, st.data())
def test_it_is_idle_between_messages_alone(content, data):
    framing = Framing(MAX)
    frame = fragments(content, [])
    place = data.draw(st.integers(1, len(frame) - 1))
    framing.feed(frame[:place])
    # The ping behind the message may be what is cut.
    whole = len(frame) - len(masked(Opcode.PING, b""))
    assert framing.is_idle is (place == whole)
    framing.feed(frame[place:])
    assert framing.is_idle


@settings(deadline=None)
@given(st.binary(max_size=300), st.integers(1, 50))
def test_any_bytes_give_messages_or_a_close(data, size):
    framing = Framing(MAX)
    for start in range(0, len(data), size):
        for message in framing.feed(data[start : start + size]):
            assert isinstance(message, (str, bytes))
    out = framing.out()
    assert framing.is_open or out[0] in {0x88, 0x8A}


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (Frame(Opcode.TEXT, b"a").serialize(mask=False), 1002),
        (masked(Opcode.CONT, b"a"), 1002),
        (masked(Opcode.TEXT, b"\xff"), 1007),
        (masked(Opcode.TEXT, b"\xe2", fin=False) + masked(Opcode.CONT, b"\x28"), 1007),
        (masked(Opcode.BINARY, b"x" * (MAX + 1)), 1009),
        (masked(Opcode.TEXT, b"x" * MAX, fin=False) + masked(Opcode.CONT, b"x"), 1009),
        (b"\xf2\x80" + bytes(4), 1002),
        (b"\x83\x80" + bytes(4), 1002),
        (masked(Opcode.CLOSE, (1000).to_bytes(2, "big")), 1000),
        (masked(Opcode.TEXT, b"a", fin=False) + masked(Opcode.CLOSE, b"\x03\xe8"), 1000),
    ],
    ids=range(10),  # a mask is different every time, and a name must not be
)
def test_what_ends_a_connection_is_answered_with_its_code(framing, data, code):
    assert framing.feed(data) == []
    assert closed_with(framing) == code
    assert not framing.is_open
    assert not framing.is_idle


def test_a_character_may_be_cut_by_a_fragment(framing):
    data = "ä".encode()
    parts = masked(Opcode.TEXT, data[:1], fin=False) + masked(Opcode.CONT, data[1:])
    assert framing.feed(parts) == ["ä"]


@pytest.mark.parametrize("payload", [b"", b"x", b"x" * 125, b"x" * 126, b"x" * 70_000])
@pytest.mark.parametrize("is_text", [True, False])
def test_a_packet_is_what_a_client_reads(payload, is_text):
    client = Protocol(CLIENT)
    client.receive_data(packet(payload, is_text))
    (frame,) = client.events_received()
    assert bytes(frame.data) == payload
    assert frame.fin
    assert frame.opcode is (Opcode.TEXT if is_text else Opcode.BINARY)


@pytest.mark.parametrize(("code", "sent"), [(4504, 4504), (1000, 1000), (99, 1011)])
def test_a_close_has_its_code_and_a_reason_that_fits(framing, code, sent):
    framing.close(code, "ä" * 100)
    out = framing.out()
    assert int.from_bytes(out[2:4], "big") == sent
    assert out[1] <= 125
    out[4:].decode()
    framing.close(4000, "again")
    assert framing.out() == b""


def test_a_close_is_over_when_the_peer_has_answered(framing):
    framing.close(4504, "")
    framing.out()
    assert not framing.is_done
    framing.feed(masked(Opcode.CLOSE, (4504).to_bytes(2, "big")))
    framing.out()
    assert framing.is_done


UPGRADE = {
    "Host": "push.example",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version": "13",
}


def test_an_upgrade_is_accepted():
    accepted, response = answer_upgrade("GET", "/sub", "HTTP/1.1", list(UPGRADE.items()))
    assert accepted
    assert response.startswith(b"HTTP/1.1 101 ")
    assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in response  # RFC 6455, section 1.3


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"Sec-WebSocket-Key": ""}, b"400"),
        ({"Sec-WebSocket-Key": "short"}, b"400"),
        ({"Sec-WebSocket-Version": "8"}, b"426"),
        ({"Connection": "close"}, b"426"),
    ],
)
def test_a_bad_upgrade_is_refused(changes, status):
    accepted, response = answer_upgrade(
        "GET", "/sub", "HTTP/1.1", list((UPGRADE | changes).items())
    )
    assert not accepted
    assert response.split()[1] == status


def by_the_library(method: str, protocol: str, headers: list[tuple[str, str]]) -> tuple[bool, str]:
    """Whether `websockets` accepts an upgrade, and its Sec-WebSocket-Accept."""
    response = ServerProtocol().accept(Request("/sub", Headers(headers), method, protocol))
    return response.status_code == 101, response.headers.get("Sec-WebSocket-Accept", "")


variants = st.fixed_dictionaries(
    {},
    optional={
        "Upgrade": st.sampled_from(["WebSocket", "websocket, h2c", "h2c", " websocket", ""]),
        "Connection": st.sampled_from(
            ["upgrade", "keep-alive, Upgrade", "Upgrade, close", "close", "", "upgrade,"]
        ),
        "Sec-WebSocket-Key": st.binary(min_size=14, max_size=18).map(
            lambda key: base64.b64encode(key).decode()
        )
        | st.sampled_from(
            ["AAAAAAAAAAAAAAAAAAAAAB==", "A" * 22, "A" * 24, "é" * 24, "A" * 22 + "= ="]
        ),
        "Sec-WebSocket-Version": st.sampled_from(["8", "13 ", "13, 8", "013"]),
        "Sec-WebSocket-Protocol": st.sampled_from(["chat", "chat, x", ",", "("]),
        "Sec-WebSocket-Extensions": st.sampled_from(["permessage-deflate", "="]),
        "Origin": st.just("https://a.example"),
    },
)


@settings(deadline=None)
@given(
    variants,
    st.lists(st.sampled_from([*UPGRADE, "Origin", "X-Other"]), max_size=2),
    st.sampled_from(["GET", "GET", "GET", "POST"]),
    st.sampled_from(["HTTP/1.1", "HTTP/1.1", "HTTP/1.0"]),
)
def test_an_upgrade_is_judged_as_the_library_judges_it(changes, doubled, method, protocol):
    headers = list((UPGRADE | changes).items())
    headers += [(name.upper(), UPGRADE.get(name, "1")) for name in doubled]
    accepted, response = answer_upgrade(method, "/sub", protocol, headers)
    is_right, accept = by_the_library(method, protocol, headers)
    assert accepted is is_right
    if accepted:
        assert f"\r\nSec-WebSocket-Accept: {accept}\r\n".encode() in response


@given(st.sampled_from([0, 1, 125, 126, 2**16 - 1, 2**16, 70_000]), st.booleans())
def test_a_message_has_the_librarys_bytes(size, is_text):
    opcode = Opcode.TEXT if is_text else Opcode.BINARY
    assert packet(b"a" * size, is_text) == Frame(opcode, b"a" * size).serialize(mask=False)


def test_an_upgrade_can_be_refused_with_a_status():
    response = refuse_upgrade(403, "Not here.\n")
    assert response.startswith(b"HTTP/1.1 403 ")
    assert response.endswith(b"\r\n\r\nNot here.\n")


def test_the_pool_hands_an_idle_framing_out_again():
    pool = FramingPool(MAX)
    one, two = pool.take(), pool.take()
    assert one is not two
    pool.give_back(one)
    assert pool.take() is one
    assert one.feed(masked(Opcode.TEXT, b"hi")) == ["hi"]


def test_the_pool_keeps_a_few():
    pool = FramingPool(MAX)
    given_back = [pool.take() for _ in range(POOL_MAX + 10)]
    for framing in given_back:
        pool.give_back(framing)
    again = [pool.take() for _ in given_back]
    assert len({id(framing) for framing in again}) == len(again)
    assert len({id(one) for one in again} & {id(one) for one in given_back}) == POOL_MAX


def test_empty_fragments_cost_no_memory_and_are_counted(framing):
    framing.feed(masked(Opcode.TEXT, b"", fin=False))
    tracemalloc.start()
    try:
        begin = tracemalloc.get_traced_memory()[0]
        for _ in range(200):
            assert framing.feed(masked(Opcode.CONT, b"", fin=False) * 20) == []
            assert framing.parts == 20
        assert tracemalloc.get_traced_memory()[0] - begin < 20_000
    finally:
        tracemalloc.stop()
    assert framing.feed(masked(Opcode.CONT, b"x")) == ["x"]
    assert framing.is_idle


def test_frames_that_are_no_messages_are_counted(framing):
    fragments = masked(Opcode.TEXT, b"a", fin=False) + masked(Opcode.CONT, b"b")
    framing.feed(masked(Opcode.PING, b"") * 3 + masked(Opcode.PONG, b"") + fragments)
    assert framing.parts == 5
    framing.feed(masked(Opcode.TEXT, b"a"))
    assert framing.parts == 0


def raw_frame(first: int, payload: bytes) -> bytes:
    """A masked frame whose first byte is any."""
    size = bytes([len(payload)]) if len(payload) < 126 else b"\x7e" + len(payload).to_bytes(2)
    return bytes([first, size[0] | 0x80]) + size[1:] + bytes(4) + payload


# FIN or not, with an opcode that there is; sometimes any byte.
first_bytes = st.sampled_from([0x01, 0x81, 0x02, 0x82, 0x00, 0x80, 0x88, 0x89, 0x8A])


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(first_bytes | st.integers(0, 255), st.binary(max_size=140)),
        max_size=12,
    ),
    st.integers(1, 60),
)
def test_any_frames_give_messages_or_a_close_code(frames, size):
    framing = Framing(MAX)
    data = b"".join(raw_frame(*frame) for frame in frames)
    for start in range(0, len(data), size):
        framing.feed(data[start : start + size])
    assert framing.is_open or b"\x88" in framing.out()
