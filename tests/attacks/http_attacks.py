"""Attacks through HTTP: bodies, headers, slowness, answers that nobody reads."""

import asyncio
import contextlib
import itertools
import time

from .target import Target

GIGABYTE = 2**30
PIECE = b"x" * 2**16
CHUNK = b"%x\r\n%b\r\n" % (len(PIECE), PIECE)
SENDERS = 4  # connections that send as fast as they can
SLOW = 500  # connections that send a byte now and then
FULL = 300  # connections that send a body, but for its last byte
CROWD = 400  # connections with small requests
PIPELINED = 20  # of them on each
UNREAD = 50  # answers that nobody reads
GRACE = 4.0  # seconds over the deadlines in which slow connections must be gone
GONE = 10.0  # seconds in any case
UPGRADE = b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
PATHS = ("POST /api/v1/pushes", "POST /nowhere", "POST /admin/login/", "GET /healthz", "GET /sub")
BIG_FILE = "/static/drf_spectacular_sidecar/swagger-ui-dist/swagger-ui-bundle.js"


def head(line: str, *headers: str) -> bytes:
    return "\r\n".join([f"{line} HTTP/1.1", "Host: localhost", *headers, "\r\n"]).encode()


async def _pour(target: Target, start: bytes, piece: bytes, until: float) -> set[bytes]:
    """Send without end, on one connection after the other; the statuses of the answers.

    Each connection gets its answer: one that stopped before would be too slow, and not too large.
    """
    statuses = set()
    while time.monotonic() < until:
        began = time.monotonic()
        status = await _pour_once(target, start, piece)
        if status == b"408":  # this machine was too slow to send what is too much
            assert time.monotonic() - began >= target.patience
        elif status:
            statuses.add(status)
    return statuses


async def _pour_once(target: Target, start: bytes, piece: bytes) -> bytes:
    """Send as fast as the node takes it until it answers; the status, or b"" for no answer."""
    reader, writer = await target.connect()
    answer = asyncio.create_task(reader.readline())
    line = b""
    with contextlib.suppress(OSError, TimeoutError):
        writer.write(start)
        while not answer.done():
            writer.write(piece)
            await asyncio.wait_for(writer.drain(), GONE)
            await asyncio.sleep(0)
        line = await answer
    answer.cancel()
    await asyncio.gather(answer, return_exceptions=True)
    writer.transport.abort()
    return line.split()[1] if line else b""


async def _pour_all(target: Target, seconds: float, piece: bytes, *headers: str) -> None:
    until = time.monotonic() + seconds
    heads = itertools.cycle(
        head(path, *headers, *(UPGRADE.decode().split("\r\n")[:3] if "sub" in path else ()))
        for path in PATHS
    )
    answers = await asyncio.gather(
        *(_pour(target, next(heads), piece, until) for _ in range(max(SENDERS, len(PATHS))))
    )
    statuses = set().union(*answers)
    assert statuses <= {b"413", b"401"}, statuses
    assert statuses


async def huge_bodies(target: Target, seconds: float) -> None:
    """A gigabyte, announced, from nobody and from a caller with a key."""
    for key in ("", f"Authorization: Api-Key {target.system.api_key}"):
        headers = [f"Content-Length: {GIGABYTE}", *([key] if key else [])]
        await _pour_all(target, seconds / 2, PIECE, *headers)


async def huge_chunked_bodies(target: Target, seconds: float) -> None:
    """The same without saying how much it will be."""
    for key in ("", f"Authorization: Api-Key {target.system.api_key}"):
        headers = ["Transfer-Encoding: chunked", *([key] if key else [])]
        await _pour_all(target, seconds / 2, CHUNK, *headers)


async def unfinished_bodies(target: Target, seconds: float) -> None:
    """As much as anybody may send, many times at once, and never the last byte."""
    start = head("POST /api/v1/pushes", f"Content-Length: {len(PIECE)}") + PIECE[1:]
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        crowd = await asyncio.gather(*(target.connect() for _ in range(FULL)))
        for _, writer in crowd:
            writer.write(start)
        # A caller with a key gets through.
        await target.api.push({"key": "1"}, b'"through"', store="never")
        await asyncio.sleep(min(1.0, seconds / 2))
        for _, writer in crowd:
            writer.transport.abort()


SLOW_STARTS = (
    (b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-A: ", b"a"),
    (b"GET /healthz HTTP/1.1\r\nHost: x\r\n", b"A: b\r\n"),
    (head("POST /api/v1/pushes", "Content-Length: 60000"), b"x"),
    (head("POST /api/v1/pushes", "Transfer-Encoding: chunked"), b"1\r\nx\r\n"),
    (head("GET /sub")[:-2] + UPGRADE + b"Sec-WebSocket-Key: ", b"a"),
    (b"", b""),
)


async def trickle(target: Target, seconds: float) -> None:
    """Hundreds of connections that send a byte now and then; each must be gone soon."""
    before = target.sockets
    allowed = min(GONE, target.deadlines + GRACE)
    until = time.monotonic() + max(seconds, allowed)

    async def drip(start: bytes, piece: bytes) -> float:
        reader, writer = await target.connect()
        began = time.monotonic()
        end = asyncio.create_task(reader.read())
        with contextlib.suppress(OSError):
            writer.write(start)
            while not end.done() and time.monotonic() < until + allowed:
                writer.write(piece)
                await asyncio.wait([end], timeout=0.2)
        took = time.monotonic() - began
        end.cancel()
        writer.transport.abort()
        return took

    while True:
        starts = itertools.islice(itertools.cycle(SLOW_STARTS), SLOW)
        took = await asyncio.gather(*(drip(*start) for start in starts))
        assert max(took) < allowed
        if time.monotonic() > until - allowed:
            break
    while target.sockets > before + 20:
        assert time.monotonic() < until + allowed, f"{target.sockets} files, {before} before"
        await asyncio.sleep(0.1)


async def header_flood(target: Target, seconds: float) -> None:
    """Headers without end, long ones and many."""
    until = time.monotonic() + seconds
    start = b"GET /healthz HTTP/1.1\r\nHost: x\r\n"
    many, long = b"X-A: b\r\n" * 1_000, b"X-A: " + b"b" * 60_000 + b"\r\n"
    answers = await asyncio.gather(
        *(_pour(target, start, piece, until) for piece in (many, long, many, long))
    )
    assert set().union(*answers) == {b"431"}


async def unread_answers(target: Target, seconds: float) -> None:
    """Requests for the largest file that there is, whose answers nobody reads."""
    await _read_nothing(target, seconds, UNREAD, head(f"GET {BIG_FILE}"))


async def many_requests(target: Target, seconds: float) -> None:
    """Hundreds of connections with small requests one behind the other, which nobody reads."""
    await _read_nothing(target, seconds, CROWD, head("GET /favicon.ico") * PIPELINED)


async def _read_nothing(target: Target, seconds: float, count: int, request: bytes) -> None:
    """One crowd of `count` connections after the other, which send the request and then go."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        crowd = await asyncio.gather(*(target.connect() for _ in range(count)))
        for _, writer in crowd:
            writer.write(request)
        await asyncio.sleep(min(1.0, seconds / 2))
        for _, writer in crowd:
            writer.transport.abort()


async def escaped_cookies(target: Target, seconds: float) -> None:
    """Cookies whose escapes take old Pythons the square of their number (CVE-2024-7592)."""
    until = time.monotonic() + seconds
    cookie = 'Cookie: sessionid="' + '\\"' * 16_000 + '"'
    while time.monotonic() < until:
        for path in ("/", "/dashboard/", "/nowhere"):
            reader, writer = await target.connect()
            writer.write(head(f"GET {path}", cookie))
            line = await asyncio.wait_for(reader.readline(), GONE)
            assert line.startswith(b"HTTP/1.1 "), line
            writer.transport.abort()


CONTROL = (
    b"GET /sub HTTP/1.1\r\nHost: localhost\r\n%bSec-WebSocket-Key: a\x0bb\r\nX-A: a\x0bb\r\n\r\n"
    % UPGRADE,
    b"GET /x%0AFORGED%20line HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /x%0D%0AFORGED%1B[31m HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /x HTTP/1.1\r\nHost: localhost\r\nX-Request-ID: a\x0bFORGED\r\n\r\n",
    b"GET /x HTTP/1.1\r\nHost: localhost\r\nDaphne-Root-Path: \xff\r\n\r\n",
    b"G\x00T / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /\x01 HTTP/1.1\r\nHost: localhost\r\nX\x0b: 1\r\n\r\n",
)


async def control_characters(target: Target, seconds: float) -> None:
    """Control characters in paths and headers: answered, and no line of their own in a log."""
    before, until = target.sockets, time.monotonic() + seconds
    for request in itertools.cycle(CONTROL):
        reader, writer = await target.connect()
        writer.write(request)
        line = await asyncio.wait_for(reader.readline(), 10)
        assert line.startswith(b"HTTP/1.1 4"), (request, line)
        writer.close()
        if time.monotonic() > until:
            break
    while target.sockets > before + 20:
        assert time.monotonic() < until + 10
        await asyncio.sleep(0.1)
    lines = target.node.log.read_text(errors="replace").splitlines()
    assert not [line for line in lines if line.startswith("FORGED")]
