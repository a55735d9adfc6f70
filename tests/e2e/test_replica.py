"""Pages and `explain` from a standby: current, too far behind, unavailable, promoted."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests import eventually

from .harness import Cluster, Database, manage
from .operators import SignIn
from .standbys import Primary, Standby
from .test_identity import Enter
from .world import new_key

SETTINGS = {"IMGO_REPLICA_LAG_MAX": "20", "IMGO_DATABASE_TIMEOUT": "2"}


@pytest.fixture
def standby(tmp_path: Path, primary: Primary) -> Standby:
    """A standby that has the template's tables."""
    return primary.add_standby(tmp_path)


@pytest.fixture
def site(tmp_path: Path, primary: Primary, standby: Standby) -> Iterator[Cluster]:
    """A node, a worker and an API process that read pages from the standby."""
    template = Database(primary.url)
    template.migrate()
    home = tmp_path / "site"
    home.mkdir()
    cluster = Cluster(home, template, nodes=1, **SETTINGS)
    url = urlsplit(standby.url)._replace(path=f"/{cluster.database.name}").geturl()
    for part in (cluster, *cluster.processes):
        part.environment["DATABASE_REPLICA_URL"] = url
    with cluster:
        yield cluster


@pytest.mark.long
async def test_pages_say_what_they_were_read_from(
    site: Cluster, standby: Standby, enter: Enter, sign_in: SignIn
) -> None:
    world, operator = await enter(site), await sign_in(site)
    key = new_key()

    async def pages() -> list[str]:
        paths = [f"/dashboard/key?name={key}", "/dashboard/data", "/dashboard/streams"]
        answers = [await operator.browser.get(path) for path in (*paths, "/admin/offline/message/")]
        assert {answer.status_code for answer in answers} == {200}, answers
        return [answer.text for answer in answers]

    async def all_say(sentence: str) -> bool:
        return all(sentence in page for page in await pages())

    first = await world.api.push({"key": key}, "one")
    lsn = standby.execute("SELECT pg_last_wal_receive_lsn()")
    await eventually(lambda: standby.has(lsn))
    await eventually(lambda: all_say("Read from the replica, at most"))
    assert "Read from the replica, at most" in manage(site.environment, "explain", key)

    # The replica stands still: new rows are shown from it as long as its age allows.
    standby.execute("SELECT pg_wal_replay_pause()")
    second = await world.api.push({"key": key}, "two")
    record = await world.api.http.get(f"/api/v1/pushes/{second}")
    assert record.status_code == 200  # the API reads from the primary
    text = manage(site.environment, "explain", key, str(second))
    assert f"Message {second} was accepted" in text
    await eventually(lambda: all_say("too far behind"), timeout=60)
    assert f">{second}<" in (await pages())[0]
    standby.execute("SELECT pg_wal_replay_resume()")
    await eventually(lambda: all_say("Read from the replica, at most"), timeout=60)

    standby.kill()
    await eventually(lambda: all_say("The replica cannot be reached."), timeout=60)
    assert f">{first}<" in (await pages())[0]
    standby.start()
    await eventually(lambda: all_say("Read from the replica, at most"), timeout=60)

    standby.execute("SELECT pg_promote()")
    await eventually(lambda: all_say("The replica is no standby now."), timeout=60)
