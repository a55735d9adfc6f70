"""ingest: stored key pushes accepted per second of the API's CPU: alone, in arrays, in a stream."""

import json
import threading
import time
from collections.abc import Callable
from typing import Any

from benchmarks.bench import Bench, Target
from benchmarks.client import RawClient, Refused, Stream, request

KEYS = 5000  # that the pushes go to in turn: none comes near OFFLINE_MAX
CONNECTIONS = 8  # for one push a request: as many as the API has threads
ARRAY = 1000  # pushes of one request
STREAM_CHUNK = 100  # lines written at a time
DRAIN = 30.0  # seconds that the worker gets to fan out what was accepted

SINGLE = Target(1200, "/CPU s", at_least=True)
ARRAYS = Target(30_000, "/CPU s", at_least=True)
STREAMED = Target(30_000, "/CPU s", at_least=True)


def run(bench: Bench) -> None:
    bench.worker()
    seconds = bench.sizes(4.0, 15.0)
    _case(bench, "one a request, keep-alive", SINGLE, lambda port: _single(port, seconds))
    arrays = bench.sizes(40, 150)
    _case(bench, f"arrays of {ARRAY:,}", ARRAYS, lambda port: _arrays(port, arrays))
    lines = bench.sizes(40_000, 150_000)
    _case(bench, "streamed, one a line", STREAMED, lambda port: _stream(port, lines))


def _push(number: int) -> dict[str, Any]:
    return {"to": {"key": f"ingest-{number % KEYS}"}, "body": {"n": number, "text": "hello"}}


def _case(bench: Bench, what: str, target: Target, work: Callable[[int], int]) -> None:
    bench.step(what)
    stack, api, worker = bench.stack, bench.api(), bench.worker()
    _single(api.port, 0.2)  # warm
    stack.drain(DRAIN)
    before = api.cpu(), stack.postgres_cpu(), stack.redis_cpu(), worker.cpu()
    began = time.monotonic()
    try:
        accepted = work(api.port)
    except (Refused, OSError) as error:
        bench.row(what, None, note=f"could not run: {error}", target=target)
        return
    wall = time.monotonic() - began
    readings = api.cpu(), stack.postgres_cpu(), stack.redis_cpu()
    cpu, postgres, redis = (
        after - start for after, start in zip(readings, before[:3], strict=True)
    )
    bench.step(f"{what}: the worker fans out")
    is_drained = stack.drain(DRAIN)
    bench.row(
        f"stored, {what}",
        accepted / cpu,
        "pushes/CPU s",
        target=target,
        note=f"{accepted / wall:,.0f}/s by the clock; Postgres {postgres / accepted * 1e6:,.0f} "
        "µs each",
        details={
            "accepted": accepted,
            "wall_s": wall,
            "pushes_per_s": accepted / wall,
            "api_us_per_push": cpu / accepted * 1e6,
            "postgres_us_per_push": postgres / accepted * 1e6,
            "redis_us_per_push": redis / accepted * 1e6,
            "worker_us_per_push": (worker.cpu() - before[3]) / accepted * 1e6,
            "worker_has_drained_its_queue": is_drained,
        },
    )
    if not is_drained:
        stack.empty_queue()


def _single(port: int, seconds: float) -> int:
    """Accepted pushes, one a request."""
    until = time.monotonic() + seconds
    counts = [0] * CONNECTIONS
    errors: list[Exception] = []

    def feed(place: int) -> None:
        client = RawClient(port)
        try:
            while time.monotonic() < until:
                client.send(request(json.dumps(_push(counts[place])).encode()))
                counts[place] += 1
        except (Refused, OSError) as error:
            errors.append(error)
        finally:
            client.close()

    threads = [threading.Thread(target=feed, args=(place,)) for place in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return sum(counts)


def _arrays(port: int, count: int) -> int:
    """Accepted pushes, 1,000 a request, one request after the other."""
    client = RawClient(port)
    accepted = 0
    for number in range(count):
        pushes = [_push(number * ARRAY + place) for place in range(ARRAY)]
        accepted += client.send(request(json.dumps(pushes).encode())).count(b'"id"')
    client.close()
    return accepted


def _stream(port: int, count: int) -> int:
    """Accepted pushes, a line each of one request."""
    chunks = [
        b"".join(json.dumps(_push(start + n)).encode() + b"\n" for n in range(STREAM_CHUNK))
        for start in range(0, count, STREAM_CHUNK)
    ]
    stream = Stream(port)
    for chunk in chunks:
        stream.write(chunk)
    accepted, refused = stream.end()
    if refused or accepted != count:
        raise Refused(f"of {count} lines {accepted} were accepted and {refused} refused")
    return accepted
