"""Replay: pages of a key's messages, pending ones and ones that its sessions have received."""

import json
from collections.abc import Collection, Iterable
from typing import TypeVar

from django.db import connection
from django.db.models.functions import Now

from imgo_site.conf import conf
from imgo_site.snapshots import Snapshot, WholeDatabase
from offline.models import ACKNOWLEDGED, RECEIVED, Event
from offline.sql import PageKind, chunks, dialect
from offline.values import Delivered, HistoryPage, Page, PendingMessage

P = TypeVar("P", Page, HistoryPage)


def read_pending(pages: Iterable[Page], size: int) -> dict[Page, list[PendingMessage]]:
    """Return, for each (key, after), the first `size` pending messages with an id above `after`.

    It makes one query for any number of pages.
    """
    return _read(list(pages), size, "pending")


def read_history(
    pages: Iterable[HistoryPage], size: int
) -> dict[HistoryPage, list[PendingMessage]]:
    """Return, for each (key, after, since), pending messages and those that sessions have had.

    The ids are above both `after` and `since`. Messages that sessions have had are found as long as
    their record is kept.
    """
    return _read(list(pages), size, "history")


def read_missed(pages: Iterable[Page], size: int, age: float) -> dict[Page, list[PendingMessage]]:
    """Return `read_pending`'s messages, and those that sessions have had in the last `age` seconds.

    With an age of 0, return only messages that have been pending for `SWEEP_AFTER` seconds and
    whose fan-out is over. Others would overtake messages that other sessions of the key have had
    and this node has not received yet.
    """
    if age:
        return _read(list(pages), size, "lately", age)
    return _read(list(pages), size, "long pending", conf.SWEEP_AFTER)


def filter_pending(pairs: Iterable[tuple[int, str]]) -> set[tuple[int, str]]:
    """Return those of these (message id, key) that are pending."""
    return dialect().filter_pending(list(set(pairs)))


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


def _read(
    pages: list[P], size: int, kind: PageKind, age: float = 0.0
) -> dict[P, list[PendingMessage]]:
    by_page: dict[P, list[PendingMessage]] = {page: [] for page in pages}
    if not by_page:
        return by_page
    distinct = list(by_page)
    given = [
        {"place": place, "key": key, "after": ids[0], "since": ids[-1]}
        for place, (key, *ids) in enumerate(distinct)
    ]
    with connection.cursor() as cursor:
        cursor.execute(dialect().pages_query(kind, size, age), [json.dumps(given)])
        rows = cursor.fetchall()
    snapshot = Snapshot.parse(rows[0][-1]) if rows and rows[0][-1] else WholeDatabase()
    for place, message_id, op, body, is_json, had, had_xmin, exclude, _ in rows:
        message = PendingMessage(
            message_id, op, bytes(body), bool(is_json), had, had_xmin, snapshot, exclude
        )
        by_page[distinct[place]].append(message)
    return by_page
