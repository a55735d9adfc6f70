"""Fixtures for the tests of links."""

import asyncio

import pytest

from push.session.socket_link import Care


@pytest.fixture
async def care():
    found = Care(asyncio.get_running_loop())
    yield found
    await asyncio.sleep(0)  # for what runs in tasks of its own
    found.close()
