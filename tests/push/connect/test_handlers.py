"""Op 4 with webhooks: the reply waits until the message is stored, or is an error."""

import json

from django.db import OperationalError

from push.connect.handlers import handle
from push.webhooks import received
from push.webhooks.tables import WebhookEvent
from push.wire import Frame, Op
from tests import in_thread
from tests.push.sessions import admit, frames
from tests.push.webhooks.conftest import entry

UPSTREAM = Frame(1, int(Op.SEND), 7, b'{"typing":true}')


async def test_upstream_message_is_stored_before_the_reply(node, imgo, monkeypatch):
    imgo(WEBHOOKS=[entry()])
    session = await admit(node, "u1")
    record, stored = received.record, []

    async def look(*args) -> None:
        await record(*args)
        assert frames(session) == []
        stored.append(await in_thread(WebhookEvent.objects.count))

    monkeypatch.setattr(received, "record", look)
    await handle(node, session, UPSTREAM)
    assert stored == [1]
    (reply,) = frames(session)
    assert (reply.seq, json.loads(reply.body)) == (7, {})


async def test_upstream_message_that_cannot_be_stored_is_unavailable(node, imgo, monkeypatch):
    imgo(WEBHOOKS=[entry()])
    session = await admit(node, "u1")

    async def fail(*_) -> None:
        raise OperationalError("it is away")

    monkeypatch.setattr(received, "record", fail)
    await handle(node, session, UPSTREAM)
    (reply,) = frames(session)
    assert json.loads(reply.body)["error"]["code"] == "unavailable"


async def test_upstream_message_that_is_refused_is_not_stored(node, imgo):
    imgo(WEBHOOKS=[entry()], RECEIVER="no.such.receiver")
    session = await admit(node, "u1")
    await handle(node, session, UPSTREAM)
    assert not await in_thread(WebhookEvent.objects.exists)
