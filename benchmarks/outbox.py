"""outbox: pushes of a project beside imgo. What one costs, how fast a relay is, and an outage."""

import json
import time

from benchmarks.bench import Bench, Target
from benchmarks.client import Client
from benchmarks.project import Project
from benchmarks.servers import HOST

ONE_QUERY = Target(1, "query")
RELAYED = Target(10_000, "/CPU s", at_least=True)
NONE_WRONG = Target(0, "keys")
RELAY_KEYS = 1000
RATE = 500.0  # pushes a second during an outage
OUTAGE_KEYS = 200  # with 500 pushes a second, none comes near OFFLINE_MAX within minutes
LEAD = 2.0  # seconds of pushes before the outage
CURRENT = 1.0  # seconds: with no older push in the outbox, the relay has caught up
TIMEOUT = 300.0  # seconds for a relay to catch up


def run(bench: Bench) -> None:
    for vendor in ("postgres", "sqlite"):
        _cost(bench, vendor)
    bench.worker()
    _relay(bench)
    _outage(bench)


def _cost(bench: Bench, vendor: str) -> None:
    """Report what a push adds to a request that writes a row."""
    bench.step(f"requests with and without a push, {vendor}")
    project = Project(bench.stack, vendor)
    count = bench.sizes(4000, 20_000)
    found = json.loads(project.run("-m", "benchmarks.shop.cost", str(count)))
    name = {"postgres": "Postgres", "sqlite": "SQLite"}[vendor]
    database = f"; {found['added_database_us']:,.0f} µs of Postgres" * (vendor == "postgres")
    bench.row(
        f"added to a request by one push_to_key, {name}",
        found["added_us"],
        "µs CPU",
        ratio=(found["plain_us"] + found["added_us"]) / found["plain_us"],
        ratio_of="without",
        note=f"a request that writes one row: {found['plain_us']:,.0f} µs{database}",
        details=found,
    )
    queries = found["added_queries"]
    bench.row(f"queries added by it, {name}", queries, "query", target=ONE_QUERY)


def _relay(bench: Bench) -> None:
    """Report how fast one relay empties an outbox."""
    count = bench.sizes(20_000, 100_000)
    stack, api = bench.stack, bench.api()
    project = Project(stack, "postgres", api.port)
    relay = project.relay()
    try:
        bench.step(f"{count:,} pushes into an outbox")
        project.run("-m", "benchmarks.shop.fill", str(count), str(RELAY_KEYS))
        bench.step(f"{count:,} pushes relayed")
        before, began = (relay.cpu(), api.cpu(), stack.postgres_cpu()), time.monotonic()
        project.wait_until_relayed(0.0, TIMEOUT)
        wall = time.monotonic() - began
        readings = relay.cpu(), api.cpu(), stack.postgres_cpu()
    finally:
        stack.stop(relay)
    spent = [end - start for end, start in zip(readings, before, strict=True)]
    bench.row(
        f"relayed by one relay, {count:,} pushes that wait",
        count / spent[0],
        "pushes/CPU s",
        target=RELAYED,
        note=f"{count / wall:,.0f}/s by the clock",
        details={
            "pushes": count,
            "wall_s": wall,
            "relay_us_per_push": spent[0] / count * 1e6,
            "api_us_per_push": spent[1] / count * 1e6,
            "postgres_us_per_push": spent[2] / count * 1e6,
        },
    )
    stack.drain()


def _outage(bench: Bench) -> None:
    """Report how an outage of the API is made good, while the project goes on to push."""
    seconds = bench.sizes(10.0, 60.0)
    stack, api = bench.stack, bench.stack.api()
    project = Project(stack, "postgres", api.port)
    relay = project.relay()
    began, pushes = time.monotonic(), project.pushes(RATE, OUTAGE_KEYS)
    try:
        time.sleep(LEAD)
        bench.step(f"{seconds:g} s without the API, {RATE:g} pushes/s")
        stack.kill(api)
        time.sleep(seconds)
        api = stack.api(api.port)
        back, backlog = time.monotonic(), project.backlog()
        project.wait_until_relayed(CURRENT, TIMEOUT)
        caught_up = time.monotonic()
        counts = pushes.end()
        rate = sum(counts) / (time.monotonic() - began)
        project.wait_until_relayed(0.0, TIMEOUT)
        bench.step(f"{sum(counts):,} messages are read")
        stack.drain()
        wrong = _count_wrong(bench, project, api.port, counts)
    finally:
        stack.stop(pushes, relay, api)
    bench.row(
        f"caught up after {seconds:g} s without the API, {RATE:g} pushes/s all the time",
        caught_up - back,
        "s",
        target=Target(seconds, "s"),
        note=f"{backlog:,} pushes waited, {backlog / (caught_up - back):,.0f}/s were sent beside"
        f" the new ones; the project made {rate:,.0f}/s",
        details={"backlog": backlog, "pushes": sum(counts), "outage_s": seconds, "rate": rate},
    )
    bench.row(
        f"keys with a message lost, doubled or out of order, {sum(counts):,} messages",
        wrong,
        f"of {OUTAGE_KEYS}",
        target=NONE_WRONG,
    )


def _count_wrong(bench: Bench, project: Project, port: int, counts: list[int]) -> int:
    """Let each key's client read its messages; return how many keys got others than they should."""
    client = Client(port)
    client.push([{"to": {"key": f"bench-{n}"}, "body": "end"} for n in range(OUTAGE_KEYS)])
    client.close()
    node = bench.stack.node()
    tokens = [json.loads(auth)["token"] for auth in bench.auths(OUTAGE_KEYS, jwts=True)]
    keys = json.dumps(list(zip(tokens, counts, strict=True)))
    url = f"ws://{HOST}:{node.port}/sub"
    try:
        return int(project.run("-m", "benchmarks.shop.arrivals", url, typed=keys))
    finally:
        bench.stack.stop(node)
