"""Tuning of Python's garbage collector, to avoid pauses for permanent objects.

A full collection visits all objects. Those of Django, Celery and Twisted are hundreds of thousands
and live as long as the process. Visiting them stops the process for 100 ms.
"""

import gc

# New objects between two collections; 700 by default. Each collection visits the objects of the
# handshakes under way, which live for a moment: with 10,000 that was a tenth of a storm's time.
THRESHOLD = 30_000


def freeze() -> None:
    """Exclude all present objects from later collections. Call this at the end of startup."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(THRESHOLD, 10, 10)
