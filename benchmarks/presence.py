"""presence: all members of one large room come back at once, while others go on."""

import json
import re
import time
import urllib.request
from typing import Any

from benchmarks.bench import Bench, Target
from benchmarks.load import Load
from benchmarks.probe import Heartbeats
from benchmarks.servers import API_KEY, HOST, Node

ROOM = "present"
SETTINGS = {
    "IMGO_ROOMS": json.dumps({ROOM: {"presence": True}}),
    # The end of all sessions takes a moment; real clients would come again.
    "IMGO_HANDSHAKE_TIMEOUT": "30",
}
INFLIGHT = 64
HEARTBEAT_TARGET = Target(500, "ms")
FRAMES_TARGET = Target(30, "frames/member")
FIRST = 900_000  # number of the first key: no other scenario has them
SETTLE = 6.0  # seconds: the grace is over, and the last frames are written
PLAIN = "plain"


def run(bench: Bench) -> None:
    members = bench.sizes(3_000, 10_000)
    plain = _storm(bench, members, PLAIN)
    present = _storm(bench, members, ROOM)
    frames = present["frames"] / members
    bench.row(
        f"{members:,} members of one room come back: frames about it",
        frames,
        "frames/member",
        target=FRAMES_TARGET,
        note=f"{present['bytes'] / members:,.0f} bytes/member",
        details=present,
    )
    bench.row(
        "longest wait of others for a heartbeat's answer meanwhile",
        present["heartbeat_s"] * 1_000,
        "ms",
        target=HEARTBEAT_TARGET,
        note=f"{plain['heartbeat_s'] * 1_000:.0f} ms with a plain room",
        details={"plain": plain, "present": present},
    )
    bench.row(
        f"{members:,} members have come back",
        present["wall_s"],
        "s",
        ratio=present["wall_s"] / plain["wall_s"],
        ratio_of="plain",
        details={"plain": plain, "present": present},
    )


def _storm(bench: Bench, members: int, room: str) -> dict[str, Any]:
    """Open the members, close them all, and open them again; what the second opening cost."""
    node = bench.stack.node(**SETTINGS)
    auths = bench.auths(members + 1, FIRST, jwts=True)
    asked = [json.dumps({**json.loads(body), "rooms": {room: {}}}).encode() for body in auths]
    try:
        with Load() as load, Heartbeats(node.target("tcp"), auths[members]) as heart:
            bench.step(f"{members:,} sessions in a {room} room: opening")
            bench.open(load, node, "websocket", asked[:members], FIRST, inflight=INFLIGHT)
            time.sleep(SETTLE)
            load.close()
            bench.step(f"{members:,} sessions in a {room} room: coming back")
            before, size, heart.longest = _frames(node), load.poll().size, 0.0
            opened = bench.open(load, node, "websocket", asked[:members], FIRST, inflight=INFLIGHT)
            time.sleep(SETTLE)
            return {
                **opened,
                "frames": _frames(node) - before,
                "bytes": load.poll().size - size,
                "heartbeat_s": heart.longest,
            }
    finally:
        bench.stack.stop(node)


def _frames(node: Node) -> float:
    """Frames of presence that the node has written so far."""
    request = urllib.request.Request(
        f"http://{HOST}:{node.port}/metrics", headers={"Authorization": f"Api-Key {API_KEY}"}
    )
    with urllib.request.urlopen(request) as answer:
        found = re.search(rb"^imgo_presence_diffs_total (\S+)", answer.read(), re.MULTILINE)
    assert found is not None
    return float(found[1])
