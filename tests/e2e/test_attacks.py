"""Attacks on a node, each for a moment: memory stays flat, and others are answered at once.

`python -m tests.attacks` runs the same for as long as is asked.
"""

from collections.abc import AsyncIterator, Callable, Iterator

import pytest
import pytest_asyncio

from tests.attacks.table import ATTACKS
from tests.attacks.target import Target, held_against
from tests.fork_server import PLAIN_START

from .harness import Embedded, System, logs

SECONDS = 1.5  # each
HASTE = "2"  # seconds of the deadlines; 5 is the default


@pytest.fixture(scope="module")
def attacked(make_embedded: Callable[..., Embedded]) -> Iterator[System]:
    """A node whose deadlines are short. A forked one would share memory, which is measured."""
    haste = dict.fromkeys(("IMGO_HANDSHAKE_TIMEOUT", "IMGO_BODY_TIMEOUT"), HASTE)
    with make_embedded(**haste, **{PLAIN_START: "1"}) as system:
        yield system


@pytest_asyncio.fixture
async def target(attacked: System) -> AsyncIterator[Target]:
    async with Target(attacked) as target:
        yield target


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.long(but=["trickle", "made_up_acknowledgements", "huge_bodies"])
async def test_an_attack_costs_others_nothing(target: Target, name: str) -> None:
    seen = await held_against(target, ATTACKS[name], SECONDS)
    assert seen.complaints == [], str(seen)
    assert logs.complaints() == []
