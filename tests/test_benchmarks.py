"""What the benchmarks do between their set-up and a measurement."""

import os

import psycopg
import pytest

from benchmarks import servers
from benchmarks.processes import StartError

pytestmark = pytest.mark.services


class Stack(servers.Stack):
    """A stack on the tests' Postgres; `cpu`: what its Postgres has used, reading by reading."""

    def __init__(self, *cpu: float) -> None:
        self.cpu = list(cpu)

    def run(self, *command: str) -> str:
        with self.database() as database:
            database.execute("CREATE TABLE IF NOT EXISTS seeded (id int)")
            database.execute("INSERT INTO seeded SELECT generate_series(1, 1000)")
        return "seeded"

    def database(self):
        return psycopg.connect(os.environ["DATABASE_URL"], autocommit=True)

    def postgres_cpu(self) -> float:
        return self.cpu.pop(0) if len(self.cpu) > 1 else self.cpu[0]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "IDLE_SAMPLE", 0.001)


def test_seeding_leaves_postgres_vacuumed_and_idle():
    stack = Stack(0.0, 1.0, 1.5, 1.5)
    assert stack.seed("pending") == "seeded"
    assert stack.cpu == [1.5]  # it has waited for two equal readings
    with stack.database() as database:
        query = "SELECT reltuples FROM pg_class WHERE relname = 'seeded'"
        assert database.execute(query).fetchone()[0] >= 1000
        database.execute("DROP TABLE seeded")


def test_seeding_fails_if_postgres_is_never_idle(monkeypatch):
    monkeypatch.setattr(servers, "IDLE_TIMEOUT", 0.0)
    stack = Stack(*map(float, range(100)))
    with pytest.raises(StartError, match="busy"):
        stack.seed("pending")
    with stack.database() as database:
        database.execute("DROP TABLE seeded")
