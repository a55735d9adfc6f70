"""Measurement of how long others have been silent, without the clock of any host.

A live node changes a value regularly, its *beat*. Every node measures by itself, with its monotonic
clock, for how long the beat of each other node has stayed the same. Only time in which beats could
be read counts. So nobody counts as silent after an outage of the store, or a pause of this node,
before it could beat again.
"""

from collections.abc import Mapping

STEPS_MAX = 2  # rounds that count at most for the time between two readings


class SilenceWatch:
    """Watch of one node. `every`: seconds between two readings."""

    def __init__(self, every: float) -> None:
        self._step_max = STEPS_MAX * every
        self._last: float | None = None  # monotonic seconds of the last reading
        self._silent: dict[str, tuple[object, float]] = {}  # id → beat, seconds without another

    def seconds(self, beats: Mapping[str, object], now: float) -> dict[str, float]:
        """Return for how long each beat has stayed the same, by id; 0 for one that is new.

        `beats`: id → beat, all that were read. `now`: monotonic seconds.
        """
        passed = 0.0 if self._last is None else min(now - self._last, self._step_max)
        self._last = now
        before, self._silent = self._silent, {}
        for id_, beat in beats.items():
            last, silent = before.get(id_, (None, 0.0))
            self._silent[id_] = (beat, silent + passed if beat == last else 0.0)
        return {id_: silent for id_, (_, silent) in self._silent.items()}
