"""examples/chat: a room that everyone who is signed in can talk in."""

from typing import Any

import httpx
import pytest

from tests import NO_TLS
from tests.e2e.harness import Embedded
from tests.e2e.world import World

from .guests import SignIn, news

EXAMPLE = "chat"
HISTORY = 50
# Live messages only, and nothing of who is there, unlike the page.
JOINS: dict[str, Any] = {"chat": {"presence": False}}


def told(line: dict[str, Any]) -> tuple[str, str]:
    return line["author"], line["text"]


async def test_everyone_in_the_room_reads_what_one_says_and_who_it_was(
    world: World, sign_in: SignIn
) -> None:
    (alice, page), (bob, bobs_page) = await sign_in("/chat/"), await sign_in("/chat/")
    sessions = [
        await alice.connect(world, page, JOINS),
        await bob.connect(world, bobs_page, JOINS),
    ]
    said = [(alice, alice.name, "Hello?"), (bob, bob.name, '<b onclick="x">Ünïcode</b> & \\ 1 < 2')]
    for who, name, text in said:
        assert (await who.post("/chat/", text=text)).status_code == 204
        for session in sessions:
            (line,) = await news(session)
            assert (line["type"], *told(line)) == ("line", name, text)


async def test_who_comes_later_reads_the_last_lines_in_their_order(
    world: World, sign_in: SignIn
) -> None:
    alice, _ = await sign_in("/chat/")
    for number in range(HISTORY + 1):
        assert (await alice.post("/chat/", text=f"line {number}")).status_code == 204
    bob, page = await sign_in("/chat/")
    session = await bob.connect(world, page, {"chat": {"rewind": HISTORY}})
    lines = await news(session, HISTORY)
    expected = [(alice.name, f"line {number}") for number in range(1, HISTORY + 1)]
    assert [told(line) for line in lines] == expected


@pytest.mark.parametrize("text", ["", "   ", "x" * 501])
async def test_a_line_that_cannot_be_is_refused_and_nobody_reads_it(
    world: World, sign_in: SignIn, text: str
) -> None:
    alice, page = await sign_in("/chat/")
    session = await alice.connect(world, page, JOINS)
    assert (await alice.post("/chat/", text=text)).status_code == 400
    assert (await alice.post("/chat/", text="x" * 500)).status_code == 204
    (line,) = await news(session)
    assert line["text"] == "x" * 500


async def test_who_is_not_signed_in_neither_reads_nor_writes(
    example: Embedded, sign_in: SignIn
) -> None:
    async with httpx.AsyncClient(
        base_url=example.api_url, trust_env=False, verify=NO_TLS
    ) as visitor:
        answer = await visitor.get("/chat/")
        assert (answer.status_code, answer.headers["Location"]) == (302, "/signin/?next=/chat/")
    alice, _ = await sign_in("/chat/")
    forged = await alice.http.post("/chat/", data={"text": "from another site"})
    assert forged.status_code == 403
