"""Fixtures for the tests of links."""

import asyncio

import pytest

from push.session.link_manager import LinkManager


@pytest.fixture
async def manager():
    found = LinkManager(asyncio.get_running_loop())
    yield found
    await asyncio.sleep(0)  # for what runs in tasks of its own
    found.close()
