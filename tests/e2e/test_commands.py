"""What operators type, against running installations: look, push, kick, and what cannot be."""

import json
import os
import re
import tempfile
from collections.abc import Awaitable, Callable

import pytest

from tests import fork_server, in_thread

from .harness import ROOT, UP_TIMEOUT, System, free_ports, manage_many
from .world import World, new_key, new_room

KICKED = 4504

Enter = Callable[[System], Awaitable[World]]


async def run(world: World, *commands: list[str], **options: str) -> list[tuple[int, str, str]]:
    """(exit status, output, errors) of each command."""
    environment = {**world.node().environment, **options}
    results: list[tuple[int, str, str]] = await in_thread(
        manage_many, environment, commands, stdin='"hi"'
    )
    return results


async def say(world: World, *commands: list[str]) -> list[str]:
    """What commands print that must succeed."""
    done = await run(world, *commands)
    assert [(status, error) for status, _, error in done] == [(0, "")] * len(commands)
    return [out for _, out, _ in done]


@pytest.mark.parametrize("kind", ["embedded", "cluster"])
async def test_commands_see_and_reach_sessions(
    request: pytest.FixtureRequest, enter: Enter, kind: str
) -> None:
    world = await enter(request.getfixturevalue(kind))
    key, room = new_key(), new_room()
    client = await world.session(key, "text", rooms=[room])

    table, data, nodes, rooms, members, first, again, third = await say(
        world,
        ["sessions", key],
        ["sessions", key, "--json"],
        ["sessions", "--json"],
        ["rooms", "--json"],
        ["rooms", room, "--json"],
        ["push", "--key", key, "--dedupe-id", key, '{"n":  1.0}'],
        ["push", "--key", key, "--dedupe-id", key, '{"n":  2.0}'],
        ["push", "--room", room, "--json", "-"],
    )
    (session,) = json.loads(data)
    assert session["transport"] == "websocket"
    assert table.splitlines()[1].startswith(session["id"])
    (node,) = (row for row in json.loads(nodes) if row["id"] == session["node"])
    assert (node["sessions"] >= 1, node["draining"]) == (True, False)
    assert {"room": room, "sessions": 1} in json.loads(rooms)
    assert json.loads(members) == [{"key": key, "session": session["id"]}]
    assert first == again
    bodies = await client.receive_bodies(2)
    assert sorted(bodies) == [b'"hi"', b'{"n":  1.0}']  # of two partitions: in either order

    since = str(int(first) - 1)
    lines, kicked = await say(
        world, ["tail", "--since", since, "--count", "2", "--json"], ["kick", key]
    )
    objects = [json.loads(line) for line in lines.splitlines()]
    assert [line["id"] for line in objects] == [first, json.loads(third)["id"]]
    assert [line["to"] for line in objects] == [{"key": key}, {"room": room}]
    assert kicked == f"Closing 1 session of {key!r}."
    ending = await client.ended()
    assert (ending.code, ending.reconnect) == (KICKED, False)
    await world.wait_for_sessions(key, 0)

    nobody = f"CommandError: The key {key!r} has no sessions."
    assert await run(world, ["kick", key], ["sessions", key], ["rooms", room]) == [
        (1, "", nobody),
        (1, "", nobody),
        (1, "", f"CommandError: Nobody is in the room {room!r}."),
    ]


async def test_what_the_embedded_server_cannot_do_is_said_and_not_pretended(
    embedded: System, enter: Enter
) -> None:
    world = await enter(embedded)
    done = await run(
        world,
        ["drain", "any"],
        ["kick", "--session", "5938fe7d-1"],
        ["imgo", "--processes", "2"],
        ["workers"],
    )
    assert [(status, out) for status, out, _ in done] == [(1, "")] * 4
    for (_, _, error), part in zip(
        done,
        (
            "stop it: Ctrl-C or SIGTERM",
            "DELETE /api/v1/keys/{key}/sessions",
            "DATABASE_URL",
            "REDIS_URL",
        ),
        strict=True,
    ):
        assert part in error


async def test_without_a_server_nothing_is_accepted(embedded: System, enter: Enter) -> None:
    world = await enter(embedded)
    key = new_key()
    commands = (["push", "--key", key, '"x"'], ["sessions", key], ["rooms"], ["kick", key])
    for status, out, error in await run(world, *commands, IMGO_HTTP_PORT="1"):
        assert (status, out) == (1, "")
        assert "No server answers at http://127.0.0.1:1" in error
        assert "manage.py imgo" in error
    assert await world.api.pending(key) == 0


async def test_the_embedded_server_is_asked_with_the_key_of_the_demo(
    embedded: System, enter: Enter
) -> None:
    world = await enter(embedded)
    key = new_key()
    await world.session(key, "tcp")
    ((status, out, error),) = await run(world, ["sessions", key, "--json"], IMGO_API_KEY="")
    assert (status, error) == (0, "")
    assert [row["transport"] for row in json.loads(out)] == ["tcp"]


def piped(environment: dict[str, str], *arguments: str) -> tuple[int, bytes]:
    """Return the exit status and the errors of a command whose output nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    with tempfile.TemporaryFile() as errors:
        command = ["manage.py", *arguments]
        process = fork_server.start(command, ROOT, environment, stdout=writer, stderr=errors)
        os.close(writer)
        try:
            status = process.wait(UP_TIMEOUT)
        finally:
            process.kill()
            process.wait()
        errors.seek(0)
        return status, errors.read()


async def test_whose_output_nobody_reads_ends_without_a_word(
    embedded: System, enter: Enter
) -> None:
    world = await enter(embedded)
    environment = world.node().environment
    assert await in_thread(piped, environment, "sessions") == (141, b"")
    # It has nothing to write, and ends nevertheless.
    assert await in_thread(piped, environment, "tail", "--key", new_key()) == (0, b"")


async def test_a_second_server_with_the_same_data_does_not_start(
    embedded: System, enter: Enter
) -> None:
    world = await enter(embedded)
    ports = dict.fromkeys(("IMGO_WS_PORT", "IMGO_TCP_PORT"), "0")
    (port,) = free_ports(1)
    ((status, out, error),) = await run(world, ["imgo"], IMGO_HTTP_PORT=str(port), **ports)
    assert (status, out) == (1, "")
    assert error.startswith("CommandError: A server runs with the data in ")


async def test_server_that_cannot_listen_names_the_setting_and_starts_nothing(
    cluster: System, enter: Enter
) -> None:
    world = await enter(cluster)
    ((status, _, error),) = await run(world, ["imgo"], IMGO_HOST="no-such-host.invalid")
    assert status == 1
    assert "(IMGO_HOST='no-such-host.invalid')" in error
    assert "has started" not in error


async def test_exit_status_tells_a_mistake_from_wrong_usage(embedded: System, enter: Enter) -> None:
    world = await enter(embedded)
    done = await run(world, ["push", "--all", "hello"], ["push", "1"], ["explain", "nobody"])
    assert [status for status, _, _ in done] == [1, 2, 0]
    assert done[0][1:] == (
        "",
        """CommandError: The body is not JSON. Text needs quotes of its own: '"hello"'""",
    )
    assert done[1][1] == ""
    assert done[1][2].startswith("usage: manage.py push")


async def test_the_checks_of_a_deployment_find_nothing_in_a_cluster(
    cluster: System, enter: Enter
) -> None:
    world = await enter(cluster)
    command = ["check", "--deploy", "--database", "default", "--fail-level", "WARNING"]
    settings = {"DJANGO_BEHIND_TLS_PROXY": "1", "IMGO_TRUSTED_PROXIES": "10.0.0.5"}
    ((status, out, error),) = await run(world, command, **settings)
    # Of this machine it may be true that nobody may open many files.
    check_ids = set(re.findall(r"\((\S+\.[A-Z]\d+)\)", error)) - {"imgo.W014"}
    assert check_ids == set(), error
    assert "(2 silenced)" in out + error
    assert status == (1 if "imgo.W014" in error else 0)
