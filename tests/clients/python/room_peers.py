"""A room of the Python client, and servers that answer its joins."""

from imgo_client.frames import Frame, Op
from tests import eventually

from .peers import take_messages

ROOM = "chat"


def at(offset, epoch="e1"):
    return {"epoch": epoch, "offset": offset}


def gap(offset, epoch="e1", room=ROOM):
    return Frame(Op.GAP, 0, {"room": room, **at(offset, epoch)})


def watch(room):
    """All that a room tells, and its messages as `take` gets them."""
    events = []
    for event in ("state", "recovered", "gap"):
        room.on(event, lambda value, event=event: events.append((event, value)))
    return events


async def take(room, count):
    """The bodies of the next messages; each is done with."""
    return [message.body for message in await take_messages(room, count)]


def serving(*sessions):
    """A script: in each session the auth is answered with a dictionary, and frames follow."""

    async def script(peer):
        told, *frames = sessions[min(len(script.asked), len(sessions) - 1)]
        await peer.accept(**{ROOM: told})
        script.asked.append(peer.auth["rooms"])
        for frame in frames:
            await peer.send(frame)
        await peer.until_gone()

    script.asked = []
    return script


async def reconnect(server, count=2):
    """Have the server end its newest session; until as many have begun."""
    await server.peers[-1].close(4000)
    await eventually(lambda: len(server.peers) >= count and server.peers[-1].auth)
