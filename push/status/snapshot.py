"""Snapshot of the whole installation for the dashboard, and samples of its last minutes.

`pushes` is the highest message id of the database. `deliveries` is the sum of the writes that the
nodes have reported. So the rate is the difference between two snapshots, and the cost of a snapshot
does not depend on the number of messages.
"""

import json
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
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
from imgo_site.replica import current_source, from_replica
from offline.models import Event, Message, Pending
from push.bus.envelope import MESSAGE, Envelope
from push.bus.group_names import room_group
from push.models import Canary, Duty
from push.registry.base import FullestRooms, ProcessEntry, Tally
from push.registry.select import get_registry
from push.status import hook_states, vitals
from push.webhooks.backlogs import backlogs
from push.wire import Op

EVERY = 2.0  # seconds between two snapshots that are sent to the dashboards
SAMPLE_EVERY = 10.0  # seconds between two samples of the last minutes
SAMPLES_KEPT = 60  # ten minutes of them
SAMPLES = "samples"  # the duty whose row stores them

NODES_SHOWN = 50
PROCESSES_SHOWN = 50
ROOMS_SHOWN = 10
PUSHES_SHOWN = 10
LATENCIES = 500  # latest events that the latency is computed from
LATENCY_AGE = 60.0  # seconds; earlier deliveries do not show the present latency
LIVE_MAX = 10.0  # seconds; messages that took longer have waited for their key to reconnect
ROOMS_SHARE = 20  # counting all rooms may take 1/ROOMS_SHARE of the time

Section = dict[str, Any]


class RoomsCache:
    """Cache of the fullest rooms, renewed as often as its cost allows. An instance has one."""

    def __init__(self) -> None:
        self._section: Section = {}
        self._next = 0.0  # monotonic seconds

    def get(self) -> Section:
        """Return the number of rooms, and the fullest. Raises `Unavailable`."""
        begin = time.monotonic()
        if begin >= self._next or not self._section:
            rooms, watching = fullest_rooms(ROOMS_SHOWN)
            self._section = {
                "watching": watching,
                "count": rooms.count,
                "count_is_estimate": rooms.is_estimate,
                "top": [{"room": room, "sessions": count} for room, count in rooms.rows],
            }
            end = time.monotonic()
            self._next = end + (end - begin) * ROOMS_SHARE
        return self._section


def fullest_rooms(limit: int) -> tuple[FullestRooms, int]:
    """Return the fullest rooms except the dashboard's, and the number of sessions in that one.

    Raises `Unavailable`.
    """
    fullest = get_registry().fullest_rooms(limit + 1)
    watching, _ = get_registry().peek(DASHBOARD_ROOM, 0)
    rows = [row for row in fullest.rows if row[0] != DASHBOARD_ROOM][:limit]
    return FullestRooms(fullest.count - bool(watching), fullest.is_estimate, rows), watching


def of_registry(cache: RoomsCache) -> Section:
    """Return the part from the registry: sessions, nodes, rooms and processes.

    `cache`: the instance's.

    Raises `Unavailable`.
    """
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
        "rooms": cache.get(),
        **of_processes(),
    }  # fmt: skip


def of_processes() -> Section:
    """Return API processes and workers, the hooks, and the sums of all processes' counters.

    Raises `Unavailable`.
    """
    processes = get_registry().processes()
    others = [process for process in processes if process.kind != "node"]
    return {
        "tally": _sum_tallies(processes),
        "hooks": hook_states.of_processes(processes),
        "processes": {
            "count": len(others),
            "rows": [
                {"id": process.id, "kind": process.kind, "name": process.name,
                 "since": process.since, "partitions": list(process.partitions)}
                for process in others[:PROCESSES_SHOWN]
            ],
        },
    }  # fmt: skip


def _sum_tallies(processes: list[ProcessEntry]) -> dict[str, int]:
    tallies = [msgspec.structs.asdict(process.tally) for process in processes]
    return {name: sum(tally[name] for tally in tallies) for name in Tally.__struct_fields__}


@from_replica
def of_database() -> Section:
    """Return the part from the database: counters, backlogs, latency and the last pushes.

    `source`: a sentence about the replica, "" without one.

    Raises `DatabaseError`.
    """
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
        "webhooks": [backlog.as_dict() for backlog in backlogs()] if conf.WEBHOOKS else [],
        "latest": latest_pushes(PUSHES_SHOWN),
        "source": current_source().sentence,
    }


def _partitions() -> Section:
    """Return the seconds since a worker took each partition's canary, and the deaf partitions."""
    if not has_workers():
        return {"deaf": [], "silence": {}}
    limit = vitals.DEAF_AFTER * conf.CANARY_INTERVAL
    silence = Canary.objects.silence(limit)
    return {
        "deaf": [n for n, seconds in silence.items() if seconds > limit],
        "silence": {str(n): round(seconds, 1) for n, seconds in silence.items()},
    }


def counters() -> Section:
    """Return the number of pushes, and the latency of the last deliveries.

    Raises `DatabaseError`.
    """
    return {
        "pushes": Message.objects.aggregate(last=Max("pk"))["last"] or 0,
        "latency": _latency(),
    }


def _latency() -> Section:
    """Return milliseconds from acceptance to the session's kernel, for the last minute."""
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
    fields = (
        "pk",
        "audience",
        "room",
        "first",
        "recipients",
        "stored",
        "by",
        "sender",
        "created_at",
    )
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
            "by": f"{names[row['by']]} {row['sender']}".rstrip(),
            "at": row["created_at"].timestamp(),
        }
        for row in latest
    ]


def assemble(*parts: Callable[[], Section]) -> Section:
    """Return a snapshot of these parts, without parts of unavailable services.

    `problems` has a sentence for each part that is missing.
    """
    result: Section = {"mark": mark(), "at": time.time(), "problems": []}
    for part in parts:
        try:
            result |= part()
        except DatabaseError:
            result["problems"].append("The database cannot be reached.")
        except Unavailable:
            result["problems"].append(
                "Redis cannot be reached: sessions, rooms and nodes are not known."
            )
    return result


def take(cache: RoomsCache) -> Section:
    """Return the whole snapshot, in any process. Never raises for an unavailable service.

    `cache`: the instance's.
    """
    return assemble(partial(of_registry, cache), of_database)


def mark() -> str:
    """Return a mark by which dashboards know snapshots; pushes to everyone reach them, too."""
    return salted_hmac("imgo.dashboard", "snapshot").hexdigest()[:32]


def envelope(picture: Section) -> Envelope:
    """Return the envelope that carries a snapshot to the dashboards."""
    body = json.dumps(picture, separators=(",", ":")).encode()
    return Envelope(
        type=MESSAGE, group=room_group(DASHBOARD_ROOM), id=0, op=int(Op.MESSAGE), body=body,
        is_json=True, key="", ensure=False,
    )  # fmt: skip


def history() -> list[Section]:
    """Return the samples of the last minutes, oldest first. Raises `DatabaseError`."""
    kept = Duty.objects.filter(name=SAMPLES).values_list("result", flat=True).first() or []
    oldest = time.time() - SAMPLE_EVERY * SAMPLES_KEPT
    return [sample for sample in kept if sample["at"] > oldest]


def add_sample(section: Section) -> None:
    """Store a sample. `found`: the result of `totals`. Raises `DatabaseError`."""
    sample = {"at": time.time(), **section, **counters()}
    Duty.objects.filter(name=SAMPLES).update(result=[*history(), sample][-SAMPLES_KEPT:])


def totals() -> Section:
    """Return the sums of all nodes and processes; None for each if the registry is unavailable."""
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
