"""Sessions that a push excludes get it in no way; other sessions of its keys do."""

import asyncio

import pytest

from offline.models import Outbox
from push.accept.accept import Push, accept_push
from push.connect.replay import Replay
from push.fanout import drain
from push.node.missed_messages import recover
from tests import eventually, in_thread
from tests.push.conftest import push_now
from tests.push.sessions import admit, ids


@pytest.fixture
async def node(node, imgo):
    """A node that recovers nothing by itself, and for which no message is too new."""
    imgo(SWEEP_AFTER=0.0)
    await asyncio.gather(node.rounds.stop(), node.cluster_jobs.stop())
    return node


@pytest.mark.parametrize("to", [{"keys": ("u1",)}, {"room": "r"}])
async def test_excluded_sessions_get_no_live_copy(node, to):
    first, second, third = [await admit(node, "u1", "r") for _ in range(3)]
    push = Push(b"1", exclude=(first.id, second.id, "elsewhere-1"), **to)
    message_id = await in_thread(accept_push, push)
    for partition in range(4):
        await in_thread(drain, partition)
    after = await in_thread(push_now, Push(b"2", **to))
    await eventually(lambda: ids(first)[-1:] == ids(third)[-1:] == [after])
    assert (ids(first), ids(second), ids(third)) == ([after], [after], [message_id, after])


async def test_audit_and_replay_skip_an_excluded_session_but_no_other(node):
    first, second = await admit(node), await admit(node)
    push = Push(b"1", keys=("u1",), exclude=(first.id,))
    message_id = await in_thread(accept_push, push)
    await in_thread(Outbox.objects.all().delete)  # no node was sent it
    assert await recover(node.hub, node.acknowledger, ["u1"]) == 1
    assert (ids(first), ids(second)) == ([], [message_id])
    replay = Replay(node, first, since=1)
    page = await replay.next_page()
    await replay.write(page, None)
    assert [one.id for one in page] == [message_id]
    assert ids(first) == []
