"""The direct link of a WebSocket, over one end of a socket pair."""

import asyncio

import pytest
from websockets.frames import Opcode
from websockets.protocol import CLIENT, Protocol

from push.session.session import Session
from push.session.websocket_link import WebSocketLink
from push.wire import CloseCode, Op, encode_binary
from tests import eventually
from tests.push.session.peers import adopt, masked


@pytest.fixture
def web(manager, peer, node) -> Session:
    """A session on a WebSocket whose upgrade was answered."""
    return adopt(WebSocketLink(manager, peer.theirs, b""), node)


async def test_an_idle_websocket_has_no_framing_of_its_own(web, peer):
    heartbeat = masked(Opcode.BINARY, encode_binary(Op.HEARTBEAT, 7))
    for byte in heartbeat:
        peer.socket.sendall(bytes([byte]))
        await asyncio.sleep(0)
    await peer.read_until(18)
    assert peer.got[:2] == b"\x82\x10"
    assert web.link._framing is None


async def test_a_websocket_ping_is_answered_and_a_close_too(web, peer, node):
    peer.socket.sendall(masked(Opcode.PING, b"hi"))
    assert await peer.read_until(4) == b"\x8a\x02hi"
    peer.socket.sendall(masked(Opcode.CLOSE, (1000).to_bytes(2, "big")))
    assert await peer.read_to_the_end() == b"\x8a\x02hi\x88\x02\x03\xe8"
    peer.socket.close()
    await eventually(lambda: node.dismissed == [web])


async def test_a_ping_inside_of_a_message_is_answered_before_the_message(web, peer):
    heartbeat = encode_binary(Op.HEARTBEAT, 7)
    peer.socket.sendall(
        masked(Opcode.BINARY, heartbeat[:5], fin=False)
        + masked(Opcode.PING, b"hi")
        + masked(Opcode.CONT, heartbeat[5:])
    )
    got = await peer.read_until(4 + 18)
    assert (got[:4], got[4:6]) == (b"\x8a\x02hi", b"\x82\x10")


async def test_what_came_before_a_broken_frame_is_answered_before_the_close(web, peer):
    heartbeat = masked(Opcode.BINARY, encode_binary(Op.HEARTBEAT, 7))
    peer.socket.sendall(heartbeat + b"\x83\x80" + bytes(4))
    got = await peer.read_to_the_end()
    assert (got[:2], got[18], got[20:22]) == (b"\x82\x10", 0x88, (1002).to_bytes(2, "big"))


async def test_a_websocket_is_closed_with_its_code(web, peer, node):
    web.disconnect(CloseCode.KICKED)
    client = Protocol(CLIENT)

    async def is_closed() -> bool:
        client.receive_data(peer.got)
        peer.got = b""
        await peer.read()
        return client.close_rcvd is not None

    await eventually(is_closed)
    assert client.close_rcvd.code == CloseCode.KICKED
    peer.socket.sendall(b"".join(client.data_to_send()))
    await peer.read_to_the_end()
    assert node.dismissed == []
    peer.socket.close()
    await eventually(lambda: node.dismissed == [web])


@pytest.mark.parametrize("frame", [(Opcode.PING, b"x", True), (Opcode.CONT, b"", False)])
async def test_frames_of_websocket_itself_are_read_at_the_allowed_pace(manager, web, peer, frame):
    opcode, data, fin = frame
    if opcode is Opcode.CONT:
        peer.socket.sendall(masked(Opcode.BINARY, b"", fin=False))
    seen = web.last_seen
    flood = masked(opcode, data, fin=fin) * 2_000
    sending = asyncio.create_task(asyncio.get_running_loop().sock_sendall(peer.socket, flood))
    await eventually(lambda: web.link._pauses)
    assert manager.paces[web.link].is_over
    assert not sending.done()
    assert web.last_seen == seen  # no message was completed: the heartbeat's deadline stands
    sending.cancel()
