"""The load generator: several processes that open sessions and count bytes, and the orders to them.

Each process tells its own CPU time, so that a starved generator cannot pass for a slow server.
"""

import multiprocessing
import multiprocessing.connection as pipes
import signal
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Self

from benchmarks.generator import Counted, Generator, Opened, Opening


def _main(kind: type[Generator], commands: Any, place: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's; it closes the pipe
    kind(commands, place).run()


class LoadError(RuntimeError):
    """The generator could not do what the scenario needs."""


class Load:
    """Generator processes, and the orders to all of them. Use it with `with`."""

    kind: type[Generator] = Generator

    def __init__(self, processes: int = 2) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipes: list[Any] = []
        self.processes = []
        for place in range(processes):
            ours, theirs = context.Pipe()
            process = context.Process(target=_main, args=(self.kind, theirs, place), daemon=True)
            process.start()
            theirs.close()
            self.pipes.append(ours)
            self.processes.append(process)
        self.sessions = 0
        self.expected = [0] * processes
        self._shares = [0] * processes
        self._last = [0] * processes
        self.cpu()  # they are up when they have answered

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for pipe in self.pipes:
            pipe.close()
        for process in self.processes:
            process.join(5)
            if process.is_alive():
                process.kill()

    def _all(self, name: str, arguments: Sequence[Any]) -> list[Any]:
        for pipe, argument in zip(self.pipes, arguments, strict=True):
            pipe.send((name, argument))
        return [self._receive(pipe) for pipe in self.pipes]

    @staticmethod
    def _receive(pipe: pipes.Connection) -> Any:
        try:
            return pipe.recv()
        except EOFError:
            raise LoadError("a load generator process has died") from None

    def open(self, opening: Opening, *, may_fail: bool = False) -> Opened:
        """Open sessions, shared out over the processes. Raises `LoadError` when some fail."""
        count, parts = len(opening.auths), len(self.pipes)
        shares = []
        for place in range(parts):
            start, end = count * place // parts, count * (place + 1) // parts
            share = replace(
                opening,
                auths=opening.auths[start:end],
                first=opening.first + start,
                inflight=max(1, opening.inflight // parts),
            )
            shares.append(share)
            self._shares[place] += end - start
            self._last[place] = end - start
        results: list[Opened] = self._all("open", shares)
        failed: dict[str, int] = {}
        for result in results:
            for reason, number in result.failed.items():
                failed[reason] = failed.get(reason, 0) + number
        opened = sum(result.opened for result in results)
        self.sessions += opened
        if failed and not may_fail:
            raise LoadError(f"{opened} of {count} sessions opened; {failed}")
        seconds = max(result.seconds for result in results)
        return Opened(opened, failed, seconds, max(result.cpu for result in results))

    def expect(self, messages: int = 1) -> None:
        """From now on `wait` waits for `messages` more at every session."""
        for place, share in enumerate(self._shares):
            self.expected[place] += share * messages

    def of_last_opening(self, messages: int) -> list[int]:
        """So many messages for each session of the last opening, by process."""
        return [share * messages for share in self._last]

    def expect_in_all(self, per_process: Sequence[int]) -> None:
        """From now on `wait` waits for so many more messages in each process."""
        for place, messages in enumerate(per_process):
            self.expected[place] += messages

    def wait(self, timeout: float = 60.0) -> Counted:
        """Wait until all expected messages are there. Raises `LoadError` after `timeout` s."""
        counted = self.poll(timeout)
        if not counted.is_complete:
            raise LoadError(
                f"{counted.messages} of {sum(self.expected)} messages arrived in {timeout:g} s; "
                f"{counted.lost} connections were closed by the server"
            )
        return counted

    def poll(self, timeout: float = 0.0) -> Counted:
        """What has arrived when all expected messages are there, or else after `timeout` s."""
        answers: list[Counted] = self._all("wait", [(count, timeout) for count in self.expected])
        return Counted(
            sum(answer.messages for answer in answers),
            sum(answer.size for answer in answers),
            sum(answer.lost for answer in answers),
            all(answer.is_complete for answer in answers),
        )

    def cpu(self) -> list[float]:
        """CPU seconds of each process so far."""
        return self._all("cpu", [None] * len(self.pipes))

    def close(self) -> None:
        """Close all sessions."""
        self._all("close", [None] * len(self.pipes))
        self.sessions = 0
        self._shares = [0] * len(self.pipes)
