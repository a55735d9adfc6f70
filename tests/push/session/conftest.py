"""Fixtures for the tests of links."""

import asyncio

import pytest

from push.session.link_manager import LinkManager
from push.session.session import Session
from push.session.tcp_link import TcpLink
from tests.push.session.peers import FakeNode, Peer, adopt


@pytest.fixture
async def manager():
    links = LinkManager(asyncio.get_running_loop())
    yield links
    await asyncio.sleep(0)  # for what runs in tasks of its own
    links.close()


@pytest.fixture
def node():
    return FakeNode()


@pytest.fixture
def peer():
    client = Peer()
    yield client
    client.socket.close()
    client.theirs.close()


@pytest.fixture
def acknowledged():
    return []


@pytest.fixture
def session(manager, peer, node, acknowledged) -> Session:
    return adopt(TcpLink(manager, peer.theirs), node, acknowledged)
