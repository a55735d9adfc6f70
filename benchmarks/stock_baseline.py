"""Stock Channels in the same run: CPU per frame, memory per session, sessions opened."""

import time
from typing import Any

from benchmarks.bench import BODIES, Bench, text_frame
from benchmarks.generator import Opening
from benchmarks.load import Load
from benchmarks.servers import HOST, Stock

SESSIONS = 1000
FRAMES = 10_000  # at about 420 µs each


def stock(bench: Bench) -> dict[str, float]:
    """The baseline's figures, measured when first asked for."""
    if "stock" not in bench.known:
        bench.step(f"the stock Channels baseline, {SESSIONS:,} sessions")
        server = Stock(bench.stack)
        try:
            with Load() as load:
                bench.known["stock"] = _measure(server, load)
        finally:
            server.stop()
    found: dict[str, float] = bench.known["stock"]
    return found


def _measure(server: Stock, load: Load) -> dict[str, float]:
    auths = [b"0"] * SESSIONS
    _open(server, load, auths[:200])  # warm
    memory, cpu, began = server.memory(), server.cpu(), time.monotonic()
    _open(server, load, auths)
    found = {
        "bytes_per_session": (server.memory()["private"] - memory["private"]) / SESSIONS,
        "opened_per_cpu_s": SESSIONS / (server.cpu() - cpu),
        "opened_per_s": SESSIONS / (time.monotonic() - began),
    }
    text, sessions = text_frame(BODIES["websocket"]), load.sessions
    _round(server, load, text)
    cpu, rounds = server.cpu(), max(1, FRAMES // sessions)
    for _ in range(rounds):
        _round(server, load, text)
    found["us_per_frame"] = (server.cpu() - cpu) / (rounds * sessions) * 1e6
    return found


def _round(server: Stock, load: Load, text: str) -> None:
    load.expect()
    server.send(text)
    load.wait()


def _open(server: Stock, load: Load, auths: list[bytes]) -> Any:
    return load.open(Opening([(HOST, server.port)], "websocket", auths, load.sessions, 64))
