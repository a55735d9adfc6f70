"""Replay: pages of a key's messages, pending ones and ones that its sessions have received."""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple, TypeVar

from django.db import connection
from django.db.models.functions import Now

from imgo_site.conf import conf
from imgo_site.snapshots import Snapshot, WholeDatabase
from offline.models import ACKNOWLEDGED, RECEIVED, Event, Pending
from offline.sql import PageKind, chunks, dialect
from offline.values import (
    Delivered,
    DevicePage,
    HistoryPage,
    MessagePage,
    Page,
    PendingMessage,
)

P = TypeVar("P", Page, HistoryPage)
Q = TypeVar("Q", Page, HistoryPage, DevicePage)


def read_pending(pages: Iterable[Page], size: int) -> dict[Page, MessagePage]:
    """Return, for each (key, after), the first `size` pending messages with an id above `after`.

    It makes one query for any number of pages.
    """
    return _read(list(pages), size, "pending")


def read_history(pages: Iterable[HistoryPage], size: int) -> dict[HistoryPage, MessagePage]:
    """Return, for each (key, after, since), pending messages and those that sessions have had.

    The ids are above both `after` and `since`. Messages that sessions have had are found as long as
    their record is kept.
    """
    return _read(list(pages), size, "history")


def read_missed(pages: Iterable[Page], size: int, age: float) -> dict[Page, MessagePage]:
    """Return `read_pending`'s messages, and those that sessions have had in the last `age` seconds.

    With an age of 0, return only messages that have been pending for `SWEEP_AFTER` seconds and
    whose fan-out is over. Others would overtake messages that other sessions of the key have had
    and this node has not received yet.
    """
    if age:
        return _read(list(pages), size, "lately", age)
    return _read(list(pages), size, "long pending", conf.SWEEP_AFTER)


def read_device_pages(
    pages: Iterable[DevicePage], size: int, kind: PageKind, age: float = 0.0
) -> dict[DevicePage, MessagePage]:
    """Return the first `size` rows of each page of devices, in order of the message's id.

    A message has a row for each device of the page that it is for. `kind`, `age`: of the content
    (`offline/sql/base.py`). The age of the kind "long pending" is that of `SWEEP_AFTER`.
    """
    if kind == "long pending":
        age = conf.SWEEP_AFTER
    distinct = list(dict.fromkeys(pages))
    parameters = [
        {"place": n, "key": page.key, "after": page.after, "since": page.since, "device": device}
        for n, page in enumerate(distinct)
        for device in page.devices
    ]
    return _fill(distinct, dialect().device_pages_query(kind, size, age), parameters)


class MissedPages(NamedTuple):
    """Pages of devices of keys, and the pages after those that were full."""

    pages: dict[Page, MessagePage]
    following: list[Page]


def read_missed_of_devices(
    pages: Iterable[Page], devices: Mapping[str, tuple[str, ...]], size: int, age: float
) -> MissedPages:
    """Return what `read_missed` does, for these devices of keys with the scope `each`.

    A message has a row for each of the devices that it is for. No page ends between two rows of one
    message.
    """
    by_page = {DevicePage(key, after, 0, devices[key]): (key, after) for key, after in pages}
    size = max(size, 1 + max((len(page.devices) for page in by_page), default=0))
    kind: PageKind = "lately" if age else "long pending"
    missed = MissedPages({}, [])
    for device_page, rows in read_device_pages(by_page, size, kind, age).items():
        if len(rows) == size:
            last = rows[-1].id
            rows = MessagePage(row for row in rows if row.id != last)  # noqa: PLW2901
            missed.following.append((device_page.key, rows[-1].id))
        missed.pages[by_page[device_page]] = rows
    return missed


def filter_pending(pairs: Iterable[tuple[int, str]]) -> set[tuple[int, str]]:
    """Return those of these (message id, key) that are pending."""
    return dialect().filter_pending(list(set(pairs)))


def find_device_deliveries(
    deliveries: Collection[tuple[int, str, str]],
) -> dict[tuple[int, str, str], Delivered]:
    """Return those of these (message id, key, device) that the device has had, or is to have.

    A message that is pending for it has the age 0.
    """
    delivered: dict[tuple[int, str, str], Delivered] = {}
    for chunk in chunks(list(set(deliveries))):
        conditions = {
            "message__in": {message_id for message_id, _, _ in chunk},
            "key__in": {key for _, key, _ in chunk},
        }
        names = {device for _, _, device in chunk}
        # In this order: a message that is settled in between is found by the second query.
        rows = Pending.objects.filter(**conditions, device__in={*names, ""})
        pending = set(rows.values_list("message_id", "key", "device"))
        events = Event.objects.filter(
            **conditions, device__in=names, kind__in=(RECEIVED, ACKNOWLEDGED)
        ).annotate(now=Now(), row_xmin=dialect().row_xmin())
        received = {
            (message_id, key, device): Delivered(max(0.0, (now - at).total_seconds()), xmin)
            for message_id, key, device, at, now, xmin in events.values_list(
                "message_id", "key", "device", "at", "now", "row_xmin"
            )
        }
        for message_id, key, device in chunk:
            place = (message_id, key, device)
            if place in pending or (message_id, key, "") in pending:
                delivered[place] = Delivered(0.0, None)
            elif place in received:
                delivered[place] = received[place]
    return delivered


def find_deliveries(pairs: Collection[tuple[int, str]]) -> dict[tuple[int, str], Delivered]:
    """Return those of these (message id, key) that a session has had, by the database's clock."""
    delivered: dict[tuple[int, str], Delivered] = {}
    for chunk in chunks(list(set(pairs))):
        rows = Event.objects.filter(
            message__in={message_id for message_id, _ in chunk},
            key__in={key for _, key in chunk},
            kind__in=(RECEIVED, ACKNOWLEDGED),
        ).annotate(now=Now(), row_xmin=dialect().row_xmin())
        columns = rows.values_list("message_id", "key", "at", "now", "row_xmin")
        chunk_pairs = set(chunk)
        for message_id, key, at, now, xmin in columns:
            if (message_id, key) in chunk_pairs:
                age = max(0.0, (now - at).total_seconds())
                delivered[message_id, key] = Delivered(age, xmin)
    return delivered


def _read(pages: list[P], size: int, kind: PageKind, age: float = 0.0) -> dict[P, MessagePage]:
    distinct = list(dict.fromkeys(pages))
    parameters = [
        {"place": place, "key": key, "after": ids[0], "since": ids[-1]}
        for place, (key, *ids) in enumerate(distinct)
    ]
    return _fill(distinct, dialect().pages_query(kind, size, age), parameters)


def _fill(
    pages: Sequence[Q], query: str, given: Sequence[Mapping[str, object]]
) -> dict[Q, MessagePage]:
    """Run a query for distinct pages; `given`: its parameter, with the index of each page."""
    by_page = {page: MessagePage() for page in pages}
    if not by_page:
        return by_page
    with connection.cursor() as cursor:
        cursor.execute(query, [json.dumps(given)])
        rows = cursor.fetchall()
    snapshot = None
    if rows and rows[-1][0] is None:
        snapshot = Snapshot.parse(rows.pop()[7])
    for place, message_id, op, body, *columns in rows:
        is_json, had, had_xmin, exclude, *device = columns
        page = by_page[pages[place]]
        page.append(
            PendingMessage(
                message_id, op, bytes(body), bool(is_json), had, had_xmin, exclude, *device
            )
        )
    for page in by_page.values():
        page.snapshot = snapshot or (WholeDatabase() if page else None)
    return by_page
