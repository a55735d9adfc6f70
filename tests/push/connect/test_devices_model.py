"""Devices of one key in random order, against a model of what is pending for which device."""

import random
from datetime import timedelta

import pytest
from django.db.models.functions import Now

from offline import conservation, key_devices
from offline.models import KeyDevice, Pending
from push.node.node import Node
from push.session.session import Session
from tests import eventually, in_thread
from tests.push.connect.test_devices_of_keys import acknowledge, messages, push
from tests.push.connect.test_handshake import open_session

NAMES = ["", "phone", "laptop", "tablet", "watch"]
DEVICES_MAX = 3
STEPS = 40
SEEDS = range(20)


@pytest.fixture(autouse=True)
def _scopes(imgo):
    trust = "tests.push.connect.test_handshake.trust"
    imgo(AUTHENTICATOR=trust, ACK_SCOPE={"*": "each"}, DEVICES_MAX=DEVICES_MAX, PARTITIONS=1)


class Scenario:
    """One key: what is done to it, and what must follow.

    `rows`: (message id, device) of what is pending. `devices`: those registered, seen last at the
    end.
    """

    def __init__(self, node: Node, seed: int) -> None:
        self.node = node
        self.draw = random.Random(seed)
        self.rows: set[tuple[int, str]] = set()
        self.devices: list[str] = []
        self.sessions: list[Session] = []
        self.read: dict[str, int] = {}  # messages of each session that were looked at

    async def run(self) -> None:
        acts = [self.push] * 4 + [self.connect, self.acknowledge] * 3 + [self.leave] * 2
        for _ in range(STEPS):
            await self.draw.choice([*acts, self.forget])()
            await self.check()

    async def check(self) -> None:
        found = await in_thread(lambda: set(Pending.objects.values_list("message", "device")))
        assert found == self.rows
        assert await in_thread(conservation.unbalanced, 0, 10**12) == []

    async def push(self) -> None:
        message_id = await push()
        self.rows |= {(message_id, device) for device in self.devices or [""]}
        for session in self.sessions:
            self.read[session.id] += 1
            await eventually(lambda one=session: len(messages(one)) == self.read[one.id])
            assert messages(session)[-1] == message_id

    async def connect(self) -> None:
        name = self.draw.choice(NAMES)
        session = await open_session(self.node, device=name)
        is_new = name not in self.devices
        self.devices = [*(one for one in self.devices if one != name), name]
        if is_new:
            self._drop(self.devices[:-DEVICES_MAX])
        shared = "" if "" not in self.devices else name
        due = sorted(i for i, device in self.rows if device in (name, shared))
        assert messages(session) == due
        self.sessions.append(session)
        self.read[session.id] = len(due)

    def _drop(self, devices: list[str]) -> None:
        self.devices = [one for one in self.devices if one not in devices]
        self.rows = {row for row in self.rows if row[1] not in devices}

    async def leave(self) -> None:
        if self.sessions:
            session = self.sessions.pop(self.draw.randrange(len(self.sessions)))
            await self.node.dismiss(session)

    async def acknowledge(self) -> None:
        with_messages = [one for one in self.sessions if messages(one)]
        if not with_messages:
            return
        session = self.draw.choice(with_messages)
        ids = self.draw.sample(messages(session), self.draw.randint(1, len(messages(session))))
        await acknowledge(self.node, session, *ids)
        for message_id in ids:
            own, shared = (message_id, session.device), (message_id, "")
            if own in self.rows:
                self.rows.discard(own)
            elif "" not in self.devices:
                self.rows.discard(shared)

    async def forget(self) -> None:
        gone = self.draw.sample(self.devices, min(len(self.devices), 1))
        old = KeyDevice.objects.filter(name__in=gone)
        await in_thread(old.update, seen_at=Now() - timedelta(days=91))
        assert (await in_thread(key_devices.forget_batch)).devices == len(gone)
        self._drop(gone)


@pytest.mark.long(but=[f"embedded-{SEEDS[0]}"])
@pytest.mark.parametrize("seed", SEEDS)
async def test_devices_get_exactly_what_is_pending_for_them(node, seed):
    await Scenario(node, seed).run()
