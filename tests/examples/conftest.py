"""Each example on a server of its own, as `make example` starts it, and its users."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack

import pytest

from tests.e2e.conftest import (  # noqa: F401 - fixtures
    clean_logs,
    enter,
    homes,
    make_embedded,
    sqlite_template,
)
from tests.e2e.harness import Embedded
from tests.e2e.world import World

from .guests import Guest, SignIn, make_guests, started

GUESTS = 8  # that the tests of one example use up
Enter = Callable[[Embedded], Awaitable[World]]


@pytest.fixture(scope="module")
def example(
    request: pytest.FixtureRequest,
    make_embedded: Callable[..., Embedded],  # noqa: F811
) -> Iterator[Embedded]:
    """The one that the test module names in `EXAMPLE`."""
    with started(make_embedded, request.module.EXAMPLE) as system:
        yield system


@pytest.fixture(scope="module")
def guests(example: Embedded) -> Iterator[tuple[str, str]]:
    """Names and passwords of users of whom no test knows anything yet."""
    return iter(make_guests(example, *(f"guest{number}" for number in range(GUESTS))))


@pytest.fixture
async def world(example: Embedded, enter: Enter) -> World:  # noqa: F811
    """The view of the example's server."""
    return await enter(example)


@pytest.fixture
async def sign_in(example: Embedded, guests: Iterator[tuple[str, str]]) -> AsyncIterator[SignIn]:
    """Signs one of them in, or the demo's admin, on a page: the user, and the page."""
    async with AsyncExitStack() as stack:

        async def enter_guest(path: str, *, as_admin: bool = False) -> tuple[Guest, str]:
            admin = ("admin", example.demo()["admin_password"])
            name, password = admin if as_admin else next(guests)
            guest = await stack.enter_async_context(Guest(example, name))
            return guest, await guest.sign_in(password, path)

        yield enter_guest
