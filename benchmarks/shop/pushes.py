"""Pushes at a steady rate: `python -m benchmarks.shop.pushes RATE KEYS`, until a line comes in.

Each push is a transaction of its own, of one of several threads, as in a web server: a single
thread waits for the disk most of its time. The body is the push's number among those to its key.
At the end it prints a JSON list: how many pushes there were for each key.
"""

import json
import sys
import threading
import time
from collections import Counter

import django

THREADS = 5  # each has keys of its own, so that the pushes to one key are in order
TICK = 0.02  # seconds between two bursts


def push(place: int, rate: float, keys: int, stop: threading.Event) -> Counter[int]:
    """Push as one of the threads until `stop`; return how many times, by key."""
    from django.db import connection

    from imgo_client.django import push_to_key

    counts: Counter[int] = Counter()
    own = range(place, keys, THREADS)
    began, done = time.monotonic(), 0
    while not stop.is_set():
        due = int((time.monotonic() - began) * rate / THREADS)
        while done < due:
            key = own[done % len(own)]
            push_to_key(f"bench-{key}", counts[key])
            counts[key] += 1
            done += 1
        stop.wait(TICK)
    connection.close()
    return counts


def main(rate: float, keys: int) -> list[int]:
    """Push until a line comes in; return how many times for each key."""
    stop, found = threading.Event(), Counter[int]()

    def work(place: int) -> None:
        found.update(push(place, rate, keys, stop))

    threads = [threading.Thread(target=work, args=(place,)) for place in range(THREADS)]
    for thread in threads:
        thread.start()
    print("pushing", flush=True)
    sys.stdin.readline()
    stop.set()
    for thread in threads:
        thread.join()
    return [found[key] for key in range(keys)]


if __name__ == "__main__":
    django.setup()
    print(json.dumps(main(float(sys.argv[1]), int(sys.argv[2]))), flush=True)
