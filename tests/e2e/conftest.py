"""The installations that the tests share, started once, and those that a test has of its own."""

import itertools
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path

import pytest

from tests.push.devices.push_service import SUBJECT, VAPID_PRIVATE
from tests.services import postgres_programs, start_first

from .clients import TRANSPORTS
from .harness import Cluster, Database, Embedded, System, logs
from .operators import SignIn, operators
from .standbys import Primary
from .world import World

# Of accounts that do not exist: devices can be registered, and no test here waits until one is due.
ACCOUNT = {
    "project_id": "p",
    "client_email": "a@p.test",
    "private_key": "k",
    "token_uri": "https://p.test",
}
PROVIDERS = {
    "IMGO_WEBPUSH_PRIVATE_KEY": VAPID_PRIVATE,
    "IMGO_WEBPUSH_SUBJECT": SUBJECT,
    "IMGO_FCM_CREDENTIALS": json.dumps(ACCOUNT),
}


@pytest.hookimpl(tryfirst=True)  # before the longer proofs are left out
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Make what does not depend on the installation a longer proof on a cluster.

    Links do not: one node proves each transport. Nor does what a whole module tests that says
    `ONE_NODE_PROVES = True`.
    """
    for item in items:
        params = item.callspec.params if hasattr(item, "callspec") else {}
        is_same = params.get("transport") in {"text", "binary"} or getattr(
            getattr(item, "module", None), "ONE_NODE_PROVES", False
        )
        if params.get("system") == "cluster" and is_same:
            item.add_marker(pytest.mark.long)


@pytest.fixture(scope="session")
def homes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Makes one directory for each installation."""
    return (tmp_path_factory.mktemp(f"system{number}") for number in itertools.count())


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated data directory."""
    return Embedded.make_template(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def postgres_template() -> Iterator[Database]:
    """A migrated database."""
    database = Database(os.environ["DATABASE_URL"])
    try:
        database.migrate()
        yield database
    finally:
        database.drop()


@pytest.fixture(scope="session")
def make_embedded(homes: Iterator[Path], sqlite_template: Path) -> Callable[..., Embedded]:
    """Makes an embedded installation with settings of its own; it is not started yet."""
    return lambda **settings: Embedded(next(homes), sqlite_template, **settings)


@pytest.fixture(scope="session")
def make_cluster(homes: Iterator[Path], postgres_template: Database) -> Callable[..., Cluster]:
    """The same for a cluster."""
    return lambda **settings: Cluster(next(homes), postgres_template, **settings)


@pytest.fixture(scope="session")
def embedded(make_embedded: Callable[..., Embedded]) -> Iterator[System]:
    """One node with SQLite."""
    with make_embedded(**PROVIDERS) as system:
        yield system
    assert logs.complaints() == []


@pytest.fixture(scope="session")
def cluster(make_cluster: Callable[..., Cluster]) -> Iterator[System]:
    """Two nodes, a worker and an API process with Postgres and Redis."""
    with make_cluster(**PROVIDERS) as system:
        yield system
    assert logs.complaints() == []


@pytest.fixture(params=["embedded", "cluster"])
def system(request: pytest.FixtureRequest) -> System:
    """One after the other."""
    system: System = request.getfixturevalue(request.param)
    return system


@pytest.fixture(params=TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> str:
    """Each of the three."""
    return str(request.param)


@pytest.fixture
def own_system() -> Iterator[Callable[[System], System]]:
    """Starts an installation that is this test's alone, and stops it afterwards."""
    with ExitStack() as stack:
        yield stack.enter_context


@pytest.fixture
async def enter() -> AsyncIterator[Callable[[System], Awaitable[World]]]:
    """Gives the view of an installation."""
    async with AsyncExitStack() as stack:

        async def enter_world(system: System) -> World:
            return await stack.enter_async_context(World(system))

        yield enter_world


@pytest.fixture
async def world(system: System, enter: Callable[[System], Awaitable[World]]) -> World:
    """The view of each shared installation."""
    return await enter(system)


@pytest.fixture
async def sign_in() -> AsyncIterator[SignIn]:
    """Signs an operator in, once in each installation, through the admin's form."""
    async with operators() as enter_browser:
        yield enter_browser


@pytest.fixture
def primary(tmp_path: Path) -> Iterator[Primary]:
    """A Postgres server of this test."""
    server = start_first(Primary, tmp_path, postgres_programs())
    yield server
    for database in (server, *server.standbys):
        database.remove()


@pytest.fixture(autouse=True)
def clean_logs() -> Iterator[None]:
    """After every test: no traceback, no token and no message body in any log."""
    yield
    assert logs.complaints() == []
