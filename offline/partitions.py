"""Partitions: to which one a key or a room belongs, and how many there are.

A key or a room belongs to the partition `hash % number`. The number is a row of the database, which
each statement that accepts a message reads; without a row it is the setting `PARTITIONS`. How it
changes: `offline/repartitioning.py`.
"""

from collections.abc import Iterable
from typing import NamedTuple
from zlib import crc32

from imgo_site.conf import conf
from offline.models import Partitioning


class Current(NamedTuple):
    """The number of partitions by which messages are accepted, and its generation.

    `is_open`: whether the messages of this generation are fanned out already.
    """

    generation: int
    partitions: int
    is_open: bool = True


def hashes_of(names: Iterable[str]) -> tuple[int, ...]:
    """Return the hashes of some keys, or of a room, each once; "" stands for everyone."""
    return tuple({_hash(name) for name in names})


def partition_of(name: str, partitions: int) -> int:
    """Return the partition of a key or a room, from 0 to `partitions` - 1."""
    return _hash(name) % partitions


def partitions_of(hashes: Iterable[int], partitions: int) -> set[int]:
    """Return the partitions of some hashes."""
    return {number % partitions for number in hashes}


def _hash(name: str) -> int:
    return crc32(name.encode("utf-8", "surrogatepass"))


def current() -> Current:
    """Return the number of partitions by which messages are accepted now."""
    last = Partitioning.objects.order_by("-generation").first()
    if last is None:
        return Current(0, conf.PARTITIONS)
    return Current(last.generation, last.partitions, last.opened_at is not None)


def queues_needed() -> int:
    """Return how many partitions may have rows in the outbox, counted from 0."""
    return max(_numbers())


def possible_partitions(name: str) -> set[int]:
    """Return the partitions that may have rows of a key or a room in the outbox."""
    return {partition_of(name, number) for number in _numbers()}


def _numbers() -> list[int]:
    """Return the present number of partitions, and during a change those before, too."""
    rows = Partitioning.objects.order_by("-generation").values_list("partitions", "opened_at")
    numbers = []
    for partitions, opened_at in rows:
        numbers.append(partitions)
        if opened_at is not None:
            break
    else:
        numbers.append(conf.PARTITIONS)
    return numbers
