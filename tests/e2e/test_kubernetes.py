"""What deploy/kubernetes runs in its containers, on processes with Postgres and Redis."""

import asyncio
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import yaml

from .harness import ROOT, Cluster, System
from .world import World, new_key

GOING_AWAY = 4000
NODES = ROOT / "deploy" / "kubernetes" / "nodes.yaml"


@pytest.mark.long
async def test_pre_stop_closes_the_sessions_before_the_node_stops(
    make_cluster: Callable[..., Cluster],
    own_system: Callable[[System], System],
    enter: Callable[[System], Awaitable[World]],
    tmp_path: Path,
) -> None:
    """The command of the manifest, with a program `imgo` that runs this checkout."""
    system = make_cluster(nodes=1)
    (node,) = system.nodes
    node.environment["IMGO_NODE_NAME"] = "imgo-node-5d8f-x2x"
    world = await enter(own_system(system))
    session = await world.session(new_key())
    program = tmp_path / "imgo"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{ROOT}/manage.py" "$@"\n')
    program.chmod(0o755)
    deployment = next(yaml.safe_load_all(NODES.read_text()))
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    done = await asyncio.to_thread(
        subprocess.run,
        container["lifecycle"]["preStop"]["exec"]["command"],
        env={**node.environment, "PATH": f"{tmp_path}:{node.environment['PATH']}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "its 1 sessions are closed" in done.stdout
    assert (await session.ended()).code == GOING_AWAY
    assert node.is_running
