"""What arrived: `python -m benchmarks.shop.arrivals URL` reads the messages of each key.

Standard input is a JSON list: for each key its token, and how many pushes there were. It prints how
many keys did not get just their numbers, in order, and then "end".
"""

import asyncio
import json
import sys

from imgo_client import Client

AT_ONCE = 20  # clients
TIMEOUT = 120.0  # seconds


async def main(url: str, keys: list[tuple[str, int]]) -> int:
    """Return how many keys got other messages than they should have got."""
    limit = asyncio.Semaphore(AT_ONCE)

    async def read(token: str) -> list[object]:
        bodies: list[object] = []
        async with limit, Client(url, token) as client:
            async for message in client:
                bodies.append(message.body)
                if message.body == "end":
                    break
        return bodies

    async with asyncio.timeout(TIMEOUT):
        found = await asyncio.gather(*(read(token) for token, _ in keys))
    pairs = zip(found, keys, strict=True)
    return sum(bodies != [*range(count), "end"] for bodies, (_, count) in pairs)


if __name__ == "__main__":
    print(asyncio.run(main(sys.argv[1], json.load(sys.stdin))))
