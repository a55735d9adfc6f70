"""Epochs of streams that do not exist yet.

The position of a room without a stream must be valid in the stream that is created later. So its
epoch is chosen before: streams that are created within `EPOCH_LIFE` have the same one. An epoch
needs to be unique only among the streams of one room.

`EPOCH_LIFE` is shorter than the time for which an unused stream is kept. So a stream that is
created again never has the epoch of the deleted one, whose offsets were other messages'.
"""

import secrets

from django.db import connection

from imgo_site.conf import conf
from offline.sql import dialect

EPOCH_BYTES = 4  # random bytes of an epoch
EPOCH_LIFE = 84 * 3_600  # seconds: half of `stream_retention.KEEP_UNUSED`


def random_epoch() -> str:
    """Return an epoch that no stream has had."""
    return secrets.token_hex(EPOCH_BYTES)


def valid_epoch() -> str:
    """Return SQL for the epoch of streams that are created now; NULL if none was chosen."""
    own = "" if conf.STREAMS_TRUST_FAILOVER else f"AND cluster = {dialect().cluster_identity()}"
    valid = f"made_at > {dialect().time_before(EPOCH_LIFE)} {own}"
    return _VALID.format(valid=valid)


def next_epoch() -> str:
    """Return the epoch of the streams that are created next.

    It is stored for `EPOCH_LIFE` seconds, as one row for all rooms.
    """
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {valid_epoch()}")
        (epoch,) = cursor.fetchone()
        if epoch is None:
            keep = f"n.made_at > {dialect().time_before(EPOCH_LIFE)}"
            row = f"{dialect().cluster_identity()}, %s, {dialect().now()}"
            cursor.execute(_CHOOSE.format(row=row, keep=keep), [random_epoch()])
            (epoch,) = cursor.fetchone()
        stored_epoch: str = epoch
        return stored_epoch


_VALID = "(SELECT epoch FROM offline_nextepoch WHERE {valid} ORDER BY made_at DESC LIMIT 1)"
# Another caller may have chosen one in the meantime.
_CHOOSE = """
    INSERT INTO offline_nextepoch AS n (cluster, epoch, made_at) VALUES ({row})
    ON CONFLICT (cluster) DO UPDATE SET
        epoch = CASE WHEN {keep} THEN n.epoch ELSE excluded.epoch END,
        made_at = CASE WHEN {keep} THEN n.made_at ELSE excluded.made_at END
    RETURNING epoch
"""
