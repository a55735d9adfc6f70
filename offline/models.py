"""The tables of what is owed to whom, and of what became of it."""

from offline.events import Event
from offline.messages import Message, NewMessage
from offline.outbox import Outbox
from offline.pendings import Pending, PendingMessage
from offline.reach import Reach

__all__ = ["Event", "Message", "NewMessage", "Outbox", "Pending", "PendingMessage", "Reach"]
