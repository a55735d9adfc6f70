"""The Celery tasks of pushing."""

import logging

from celery import Task, shared_task

from imgo_site.conf import conf
from imgo_site.errors import Unavailable
from offline.models import Message, Pending
from push.envelope import Envelope, message_envelope
from push.groups import ALL, key_group, room_group
from push.publish import publish

logger = logging.getLogger(__name__)


@shared_task(
    bind=True,
    name="push.fan_out",
    autoretry_for=(Unavailable,),
    max_retries=5,
    retry_backoff=1,
    retry_backoff_max=30,
)
def fan_out(self: "Task[[list[int]], None]", ids: list[int]) -> None:
    """Send the messages with these ids to the groups they are for, in order of id.

    All keys of a message, those too that have acknowledged it already: one device may have been
    replayed it before this runs, and the others have it to come. When this has run before, in
    part or in vain, only what the database says is still owed.
    """
    messages = Message.objects.live(ids)
    is_again = self.request.retries > 0 or (self.request.delivery_info or {}).get("redelivered")
    owed = Pending.objects.keys_of(m.pk for m in messages if m.stored) if is_again else None
    envelopes: list[Envelope] = []
    for message in messages:
        keys = message.keys or []
        if owed is not None and message.stored:
            keys = owed.get(message.pk, [])
        envelopes += envelopes_of(message, keys)
    publish(envelopes)
    stored = {key for message in messages if message.stored for key in message.keys or []}
    Pending.objects.trim(stored, conf.OFFLINE_MAX)


def envelopes_of(message: Message, keys: list[str]) -> list[Envelope]:
    """One envelope for each group that the message goes to."""
    if message.audience == Message.Audience.ROOM:
        return [message_envelope(room_group(message.room), message)]
    if message.audience == Message.Audience.ALL:
        return [message_envelope(ALL, message)]
    return [
        message_envelope(key_group(key), message, key if message.stored else "") for key in keys
    ]
