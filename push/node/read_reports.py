"""Reports that a device has read messages, for the other devices of its key (op 31).

They are live only: a device that is not connected does not get one later.
"""

import logging
from collections.abc import Iterable, Sequence
from typing import Any

from offline.node_io import Acknowledger
from offline.values import DeviceReceipt
from push.bus import publish
from push.bus.background_tasks import Background
from push.bus.envelope import Envelope, read_envelope
from push.bus.group_names import key_group
from push.bus.layers import LAYER_ERRORS
from push.metrics import definitions as metrics
from push.session.outgoing import Notice
from push.session.session import Session
from push.wire import Op, compact_json

logger = logging.getLogger(__name__)

IDS_MAX = 500  # ids of one report


def reporting_acknowledger(background: Background) -> Acknowledger:
    """Return an acknowledger that reports what devices have read, and counts lost receipts."""
    return Acknowledger(
        lambda why: metrics.RECEIPTS_LOST.labels(why).inc(),
        lambda receipts: background.run(send(receipts)),
    )


async def send(receipts: Sequence[DeviceReceipt]) -> None:
    """Report acknowledgements to the nodes that have sessions of their keys."""
    try:
        await publish.send(envelopes_of(receipts))
    except LAYER_ERRORS as error:
        metrics.DROPS.labels("read_report").inc()
        logger.warning("devices are not told what others have read: %s", error)


def envelopes_of(receipts: Sequence[DeviceReceipt]) -> list[Envelope]:
    """Return the reports of acknowledgements, in their order, one for each device of a key."""
    by_device: dict[tuple[str, str], list[str]] = {}
    for receipt in receipts:
        by_device.setdefault((receipt.key, receipt.device), []).append(str(receipt.message_id))
    return [
        read_envelope(key_group(key), device, compact_json({"ids": ids[start : start + IDS_MAX]}))
        for (key, device), ids in by_device.items()
        for start in range(0, len(ids), IDS_MAX)
    ]


def deliver(sessions: Iterable[Session], message: dict[str, Any]) -> None:
    """Write a report to those of a key's sessions that have named another device."""
    notice = Notice(Op.READ, message["body"], "")
    for session in list(sessions):
        if session.device and session.device != message["device"]:
            session.deliver(notice)
