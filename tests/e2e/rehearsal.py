"""Does what a page says, block by block, on an installation that runs for it."""

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from tests import wait_until
from tests.services import LAUNCHER, free_port

from .harness import HOST, ROOT, Environment, System
from .pages import Block

TIMEOUT = 60.0  # seconds for one block
CLIENT = ROOT / "push" / "static" / "push" / "imgo.js"
SUFFIXES = {"sh": "sh", "python": "py", "js": "mjs"}
# Variables that the blocks of a page set are handed on in this file.
SHELL = """
set -euo pipefail
[ -e {state} ] && . {state}
set -a
trap 'status=$?; export -p > {state}; exit $status' EXIT
"""


class Rehearsal:
    """One page on an installation that is running already, or is started when it is needed.

    One that is not is the page's own: its settings and files go into it.

    `beside`: the page is about a project that has nothing of imgo's. Its blocks run in an empty
    directory, and its files are made when their turn comes. The project's port is `site_port`.
    """

    def __init__(self, home: Path, system: System, *, beside: bool = False) -> None:
        self._home = home
        self._system = system
        self._is_up = system.nodes[0].is_running
        self._printed = ""
        self._running: dict[str, Path] = {}
        self._stack = ExitStack()
        self._count = 0
        self._beside = beside
        if beside:
            self.site_port = free_port()
            return
        for entry in ROOT.iterdir():  # the page's own checkout, which it may add files to
            if entry.name not in {".git", "var"}:
                (home / entry.name).symlink_to(entry)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def prepare(self, blocks: Iterable[Block]) -> None:
        """Put the files and settings of a page in place: the server needs them from its start."""
        for block in blocks:
            if block.verb == "file" and not self._beside:
                self._write(block)
            elif block.verb == "settings":
                self._set(block)

    def do(self, block: Block) -> None:
        """One block. Fails when it does not do what the page says."""
        actions: dict[str, Callable[[Block], None]] = {
            "run": self._run,
            "run in django": self._run,
            "start": self._leave_running,
            "prints": self._compare,
            "server": lambda _: self._serve(),
            "file": self._write,
            "append": self._append,
        }
        actions[block.verb](block)

    # The installation

    def _serve(self) -> None:
        if not self._is_up:
            if not self._beside:
                self._change(PYTHONPATH=str(self._home))
            self._stack.enter_context(self._system)
            self._is_up = True

    def _set(self, block: Block) -> None:
        words = shlex.split(block.text, comments=True)
        self._change(**dict(word.split("=", 1) for word in words if word != "export"))

    def _change(self, **settings: str) -> None:
        assert not self._is_up, "settings must come before the server"
        for process in (self._system, *self._system.processes):
            process.environment.update(settings)

    def _write(self, block: Block) -> None:
        path = self._home / block.rest
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self._adapted(block.text))

    def _append(self, block: Block) -> None:
        with (self._home / block.rest).open("a") as file:
            file.write("\n" + self._adapted(block.text))

    # Running

    def _adapted(self, text: str) -> str:
        """With the ports of the installation instead of the usual ones."""
        node = self._system.nodes[0]
        ports = {8000: node.http_port, 8080: node.tcp_port, 8090: node.ws_port}
        for usual, own in ports.items():
            text = text.replace(f"localhost:{usual}", f"{HOST}:{own}")
            text = text.replace(f'"localhost", {usual}', f'"{HOST}", {own}')
        if self._beside:
            # A later block may change the settings, and the site must not restart under a test.
            text = text.replace("runserver 8001", f"runserver --noreload {self.site_port}")
        return text.replace('"/static/push/imgo.js"', f'"{CLIENT.as_uri()}"')

    def _command(self, block: Block) -> list[str]:
        """A shell that runs the block, with the variables of those before it."""
        if "localhost:" in block.text:
            self._serve()
        self._count += 1
        script = self._home / f"block{self._count}.{SUFFIXES[block.language]}"
        text = self._adapted(block.text)
        # What a reader puts in by hand.
        text = re.sub("<(token|key)>", lambda match: self._variable(match[1].upper()), text)
        script.write_text(text)
        state = shlex.quote(str(self._home / "state"))
        if block.language == "sh":
            line = text
        elif block.language == "js":
            line = f"exec node {shlex.quote(str(script))}"
        elif block.verb == "run in django":
            line = f'exec python manage.py shell -v 0 -c "$(cat {shlex.quote(str(script))})"'
        else:
            line = f"exec python {shlex.quote(str(script))}"
        return ["/bin/bash", "-c", SHELL.format(state=state) + line]

    def _variable(self, name: str) -> str:
        state = self._home / "state"
        if name == "KEY" and not state.exists():
            return self._system.api_key  # a reader has it from what the server prints
        text = state.read_text()
        declaration = re.search(rf'^declare -x {name}="(.*)"$', text, re.MULTILINE)
        assert declaration is not None, f"no block before has set {name}"
        return declaration[1]

    def _environment(self) -> Environment:
        programs = str(Path(sys.executable).parent)  # as in an activated virtual environment
        base = self._system.environment
        path = os.pathsep.join((programs, base["PATH"]))
        # A reader has installed the client.
        modules = os.pathsep.join((str(self._home), str(ROOT / "clients" / "python")))
        return {**base, "PATH": path, "PYTHONPATH": modules, "PYTHONUNBUFFERED": "1"}

    def _run(self, block: Block) -> None:
        done = subprocess.run(
            self._command(block),
            cwd=self._home,
            env=self._environment(),
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
        report = f"{block} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
        assert done.returncode == 0, report
        self._printed = done.stdout

    def _leave_running(self, block: Block) -> None:
        out = self._home / f"{block.rest}.out"
        with out.open("wb") as file:
            # SIGKILL when the tests die, however that happens: nothing of ours is left behind.
            words = map(str, (os.getpid(), -1, -1, int(signal.SIGKILL)))
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", LAUNCHER, *words, *self._command(block)],
                cwd=self._home,
                env=self._environment(),
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        self._running[block.rest] = out
        self._stack.callback(process.wait, TIMEOUT)
        self._stack.callback(os.killpg, process.pid, signal.SIGKILL)

    def _compare(self, block: Block) -> None:
        text = self._adapted(block.text) if self._beside else block.text
        pattern = ".*?".join(map(re.escape, text.strip().split("…")))
        if not block.rest:
            printed = self._printed.strip()
            assert re.fullmatch(pattern, printed, re.DOTALL), f"{block} is not:\n{printed}"
            return
        out = self._running[block.rest]
        try:
            wait_until(lambda: re.search(pattern, out.read_text(), re.DOTALL))
        except AssertionError:
            raise AssertionError(f"{block} is not in:\n{out.read_text()}") from None
