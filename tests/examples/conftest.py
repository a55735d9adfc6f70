"""Each example on a server of its own, as `make example` starts it, and its users."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack

import pytest

from tests.e2e.conftest import (  # noqa: F401 - fixtures
    clean_logs,
    enter,
    homes,
    make_cluster,
    make_embedded,
    postgres_template,
    sqlite_template,
)
from tests.e2e.harness import System
from tests.e2e.world import World

from .guests import Guest, SignIn, admin_of, make_guests, started

GUESTS = 8  # that the tests of one example use up
Enter = Callable[[System], Awaitable[World]]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each module says on which installations; most need one node with SQLite alone."""
    if "example" in metafunc.fixturenames:
        installations = getattr(metafunc.module, "INSTALLATIONS", ["embedded"])
        metafunc.parametrize("example", installations, indirect=True, scope="module")


@pytest.fixture(scope="module")
def example(request: pytest.FixtureRequest) -> Iterator[System]:
    """The one that the test module names in `EXAMPLE`."""
    make = request.getfixturevalue(f"make_{request.param}")
    with started(make, request.module.EXAMPLE) as system:
        yield system


@pytest.fixture(scope="module")
def admin(example: System) -> tuple[str, str]:
    """The administrator's name and password."""
    return admin_of(example)


@pytest.fixture(scope="module")
def guests(example: System) -> Iterator[tuple[str, str]]:
    """Names and passwords of users of whom no test knows anything yet."""
    return iter(make_guests(example, *(f"guest{number}" for number in range(GUESTS))))


@pytest.fixture
async def world(example: System, enter: Enter) -> World:  # noqa: F811
    """The view of the example's server, when what was pushed before has been sent.

    All tests of an example share its rooms.
    """
    found = await enter(example)
    await found.settle()
    return found


@pytest.fixture
async def sign_in(
    example: System, guests: Iterator[tuple[str, str]], admin: tuple[str, str]
) -> AsyncIterator[SignIn]:
    """Signs one of them in, or the administrator, on a page: the user, and the page."""
    async with AsyncExitStack() as stack:

        async def enter_guest(path: str, *, as_admin: bool = False) -> tuple[Guest, str]:
            name, password = admin if as_admin else next(guests)
            guest = await stack.enter_async_context(Guest(example, name))
            return guest, await guest.sign_in(password, path)

        yield enter_guest
