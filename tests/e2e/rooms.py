"""Installations with rooms that keep their messages."""

import json
import sqlite3
from contextlib import closing

from .harness import System
from .world import World, new_room

KEPT, FEW = 1_000, 3  # messages that the rooms keep
POLICIES = {"chat-*": {"history": KEPT}, "short-*": {"history": FEW}, "last-*": {"history": 1}}
SETTINGS = {"IMGO_ROOMS": json.dumps(POLICIES)}


def new_kept_room(kind: str = "chat") -> str:
    """A room with history that no other test uses."""
    return f"{kind}-{new_room()}"


async def push_to(world: World, room: str, *bodies: object) -> None:
    """Push bodies to a room, in order."""
    for body in bodies:
        await world.api.push({"room": room}, body)


def change_epoch(system: System, room: str) -> None:
    """Do to a room's stream what a restored database does. The installation must be embedded."""
    with closing(sqlite3.connect(system.home / "data" / "imgo.sqlite3", timeout=30)) as database:
        changed = database.execute(
            "UPDATE offline_stream SET epoch = 'restored' WHERE room = ?", (room,)
        )
        assert changed.rowcount == 1
        database.commit()
