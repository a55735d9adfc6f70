"""The long form: every attack on a node of its own, for as long as is asked."""

import argparse
import asyncio
import os
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from tests.e2e.harness import Embedded, logs
from tests.fork_server import PLAIN_START

from .table import ATTACKS
from .target import Target, held_against

console = Console(soft_wrap=True, highlight=False)


async def run(system: Embedded, seconds: float, only: str) -> list[str]:
    """Run the attacks; what did not hold."""
    failures = []
    async with Target(system) as target:
        for name, attack in ATTACKS.items():
            if only not in name:
                continue
            try:
                seen = await held_against(target, attack, seconds)
            except AssertionError as error:
                failures.append(f"{name}: {error}")
                console.print(f"{name}: FAILED {error}")
                continue
            failures += [f"{name}: {complaint}" for complaint in seen.complaints]
            console.print(f"{name}: {'FAILED ' if seen.complaints else ''}{seen}")
    return failures


def main(arguments: list[str]) -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.attacks", description=__doc__)
    parser.add_argument("--seconds", type=float, default=15.0, help="each (%(default)s)")
    parser.add_argument("--only", default="", help="attacks with this in their name")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="imgo-attacks-") as home:
        template = Embedded.make_template(Path(home, "template"))
        with Embedded(Path(home), template) as system:
            failures = asyncio.run(run(system, options.seconds, options.only))
        failures += logs.complaints()
    for failure in failures:
        console.print(f"FAILED {failure}")
    return bool(failures)


if __name__ == "__main__":
    os.environ[PLAIN_START] = "1"  # its faults and its memory are those of users' processes
    sys.exit(main(sys.argv[1:]))
