"""What the dashboard shows: one small picture of the whole installation, and its last minutes.

`pushes` is the highest id that the database has given, `deliveries` the sum of what the nodes say
that they have written: whoever has two pictures has the rate between them, and asking for them
costs the same however much there is.
"""

import json
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import msgspec
from django.db import Error as DatabaseError
from django.db.models import Max
from django.db.models.fields.json import KT
from django.db.models.functions import Now
from django.utils.crypto import salted_hmac

from accounts.callers import caller_names
from imgo_site.conf import conf
from imgo_site.deployment import has_workers
from imgo_site.errors import Unavailable
from imgo_site.estimates import EXACT_MAX, estimated_count
from imgo_site.names import DASHBOARD_ROOM
from offline.models import Event, Message, Pending
from push.bus.envelope import MESSAGE, Envelope
from push.bus.groups import room_group
from push.models import Canary, Duty
from push.registry.base import FullestRooms, ProcessEntry, Tally
from push.registry.select import get_registry
from push.status import vitals
from push.wire import Op

EVERY = 2.0  # seconds between two pictures that are sent to the dashboards
SAMPLE_EVERY = 10.0  # seconds between two samples of the last minutes
SAMPLES_KEPT = 60  # ten minutes of them
SAMPLES = "samples"  # the duty that keeps them

NODES_SHOWN = 50
PROCESSES_SHOWN = 50
ROOMS_SHOWN = 10
PUSHES_SHOWN = 10
LATENCIES = 500  # of the last events
LATENCY_AGE = 60.0  # seconds; what was delivered before says nothing about now
LIVE_MAX = 10.0  # seconds; what took longer has waited for its key to come back
ROOMS_SHARE = 20  # counting all rooms may take a twentieth of the time

Section = dict[str, Any]


class _Rooms:
    """The fullest rooms, counted anew as often as that is cheap."""

    def __init__(self) -> None:
        self._found: Section = {}
        self._next = 0.0  # monotonic seconds

    def get(self) -> Section:
        """How many rooms there are, and the fullest. Raises `Unavailable`."""
        begin = time.monotonic()
        if begin >= self._next or not self._found:
            found, watching = fullest_rooms(ROOMS_SHOWN)
            self._found = {
                "watching": watching,
                "count": found.count,
                "count_is_estimate": found.is_estimate,
                "top": [{"room": room, "sessions": count} for room, count in found.rows],
            }
            end = time.monotonic()
            self._next = end + (end - begin) * ROOMS_SHARE
        return self._found


_rooms = _Rooms()


def fullest_rooms(limit: int) -> tuple[FullestRooms, int]:
    """The fullest rooms but for the dashboard's own; and how many are in that one.

    Raises `Unavailable`.
    """
    found = get_registry().fullest_rooms(limit + 1)
    watching, _ = get_registry().peek(DASHBOARD_ROOM, 0)
    rows = [row for row in found.rows if row[0] != DASHBOARD_ROOM][:limit]
    return FullestRooms(found.count - bool(watching), found.is_estimate, rows), watching


def of_registry() -> Section:
    """Sessions, nodes and rooms. Raises `Unavailable`."""
    nodes = get_registry().nodes()
    return {
        "sessions": sum(node.sessions for node in nodes),
        "deliveries": sum(node.deliveries for node in nodes),
        "nodes": {
            "count": len(nodes),
            "rows": [
                {"id": n.id, "number": n.number, "name": n.name, "since": n.since,
                 "sessions": n.sessions, "is_draining": n.is_draining}
                for n in nodes[:NODES_SHOWN]
            ],
        },
        "rooms": _rooms.get(),
        **of_processes(),
    }  # fmt: skip


def of_processes() -> Section:
    """Return API processes and workers, and what all processes have counted.

    Raises `Unavailable`.
    """
    found = get_registry().processes()
    others = [one for one in found if one.kind != "node"]
    return {
        "tally": _sum_tallies(found),
        "processes": {
            "count": len(others),
            "rows": [
                {"id": one.id, "kind": one.kind, "name": one.name, "since": one.since,
                 "partitions": list(one.partitions)}
                for one in others[:PROCESSES_SHOWN]
            ],
        },
    }  # fmt: skip


def _sum_tallies(processes: list[ProcessEntry]) -> dict[str, int]:
    tallies = [msgspec.structs.asdict(one.tally) for one in processes]
    return {name: sum(one[name] for one in tallies) for name in Tally.__struct_fields__}


def of_database() -> Section:
    """Counters, what waits, how long deliveries took, the last pushes. Raises `DatabaseError`."""
    waiting = vitals.outbox()
    pending = estimated_count(Pending)
    balance = Duty.objects.filter(name="balance").values_list("result", flat=True).first()
    return {
        **counters(),
        "pending": pending,
        "pending_is_estimate": pending > EXACT_MAX,
        "outbox": {"waiting": waiting.count, "oldest": waiting.oldest, "parked": waiting.parked},
        **_partitions(),
        "missing": (balance or {}).get("missing", 0),
        "latest": latest_pushes(PUSHES_SHOWN),
    }


def _partitions() -> Section:
    """Return how many seconds ago a worker answered for each partition, and who is deaf."""
    if not has_workers():
        return {"deaf": [], "silence": {}}
    limit = vitals.DEAF_AFTER * conf.CANARY_INTERVAL
    silence = Canary.objects.silence(limit)
    return {
        "deaf": [n for n, seconds in silence.items() if seconds > limit],
        "silence": {str(n): round(seconds, 1) for n, seconds in silence.items()},
    }


def counters() -> Section:
    """How many pushes, and how long the last deliveries took. Raises `DatabaseError`."""
    return {
        "pushes": Message.objects.aggregate(last=Max("pk"))["last"] or 0,
        "latency": _latency(),
    }


def _latency() -> Section:
    """Milliseconds from acceptance to the session's kernel, of the last minute's deliveries."""
    last = Event.objects.aggregate(last=Max("pk"))["last"] or 0
    kinds = (Event.Kind.SENT, Event.Kind.RECEIVED)
    rows = Event.objects.filter(pk__gt=last - LATENCIES, kind__in=kinds)
    rows = rows.filter(at__gt=Now() - timedelta(seconds=LATENCY_AGE))
    took = sorted(
        seconds
        for at, accepted in rows.values_list("at", "message__created_at")
        if (seconds := (at - accepted).total_seconds()) <= LIVE_MAX
    )
    if not took:
        return {"p50": None, "p99": None}
    return {
        "p50": round(1000 * max(0.0, took[len(took) // 2]), 1),
        "p99": round(1000 * max(0.0, took[len(took) * 99 // 100]), 1),
    }


def latest_pushes(limit: int) -> list[Section]:
    """Return the messages with the highest ids, at most `limit`. Raises `DatabaseError`."""
    fields = ("pk", "audience", "room", "first", "recipients", "stored", "by", "created_at")
    rows = Message.objects.order_by("-pk").annotate(first=KT("keys__0"))
    latest = list(rows.values(*fields)[:limit])
    names = caller_names(row["by"] for row in latest)
    return [
        {
            "id": str(row["pk"]),
            "target": row["audience"],
            "name": row["room"] or row["first"] or "",
            "keys": row["recipients"],
            "stored": row["stored"],
            "by": names[row["by"]],
            "at": row["created_at"].timestamp(),
        }
        for row in latest
    ]


def assemble(*parts: Callable[[], Section]) -> Section:
    """A picture of these parts; what cannot be known is left out, and `problems` says why."""
    found: Section = {"mark": mark(), "at": time.time(), "problems": []}
    for part in parts:
        try:
            found |= part()
        except DatabaseError:
            found["problems"].append("The database cannot be reached.")
        except Unavailable:
            found["problems"].append(
                "Redis cannot be reached: sessions, rooms and nodes are not known."
            )
    return found


def take() -> Section:
    """The whole picture, from any process. Never raises for what is away."""
    return assemble(of_registry, of_database)


def mark() -> str:
    """What only a picture of ours has: a push to everyone reaches the dashboards too."""
    return salted_hmac("imgo.dashboard", "snapshot").hexdigest()[:32]


def envelope(picture: Section) -> Envelope:
    """The picture on its way to the dashboards."""
    body = json.dumps(picture, separators=(",", ":")).encode()
    return Envelope(
        type=MESSAGE, group=room_group(DASHBOARD_ROOM), id=0, op=int(Op.MESSAGE), body=body,
        is_json=True, key="", ensure=False,
    )  # fmt: skip


def history() -> list[Section]:
    """The samples of the last minutes, oldest first. Raises `DatabaseError`."""
    kept = Duty.objects.filter(name=SAMPLES).values_list("result", flat=True).first() or []
    oldest = time.time() - SAMPLE_EVERY * SAMPLES_KEPT
    return [sample for sample in kept if sample["at"] > oldest]


def add_sample(found: Section) -> None:
    """Keep a sample, with what `totals` found. Raises `DatabaseError`."""
    sample = {"at": time.time(), **found, **counters()}
    Duty.objects.filter(name=SAMPLES).update(result=[*history(), sample][-SAMPLES_KEPT:])


def totals() -> Section:
    """Return sessions, deliveries and tallies of all; None for each if the registry is away."""
    try:
        nodes = get_registry().nodes()
        processes = get_registry().processes()
    except Unavailable:
        return {"sessions": None, "deliveries": None, "tally": None}
    return {
        "sessions": sum(node.sessions for node in nodes),
        "deliveries": sum(node.deliveries for node in nodes),
        "tally": _sum_tallies(processes),
    }
