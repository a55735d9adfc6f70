"""Signals of the app: events that the server reports, and outcomes of the relay.

Events of webhooks are sent with `data` (the event's dictionary), `timestamp` (a datetime, aware if
USE_TZ is set) and `webhook_id`. If a receiver raises, the server sends the webhook again, and what
receivers wrote into the app's database is rolled back. `EVENTS` maps the server's names to signals.
"""

from __future__ import annotations

from django.dispatch import Signal

message_received = Signal()
message_delivered = Signal()
message_acknowledged = Signal()
message_expired = Signal()
message_dropped = Signal()
message_notified = Signal()
message_notify_failed = Signal()
key_online = Signal()
key_offline = Signal()
room_occupied = Signal()
room_vacated = Signal()

EVENTS: dict[str, Signal] = {
    "message.received": message_received,
    "message.delivered": message_delivered,
    "message.acknowledged": message_acknowledged,
    "message.expired": message_expired,
    "message.dropped": message_dropped,
    "message.notified": message_notified,
    "message.notify_failed": message_notify_failed,
    "key.online": key_online,
    "key.offline": key_offline,
    "room.occupied": room_occupied,
    "room.vacated": room_vacated,
}

# For metrics. Errors of receivers are logged and do not stop the relay.
pushes_relayed = Signal()  # `using`, `count`, `oldest`: seconds between the oldest call and now
push_parked = Signal()  # `using`, `push_id`, `error`
relay_failed = Signal()  # `using`, `lanes`, `error`
