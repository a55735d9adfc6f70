"""Tuning of Python's garbage collector, to avoid pauses for permanent objects.

A full collection visits all objects. Those of Django, Celery and Twisted are hundreds of thousands
and live as long as the process. Visiting them stops the process for 100 ms.
"""

import gc

THRESHOLD = 10_000  # new objects between two collections; 700 by default


def freeze() -> None:
    """Exclude all present objects from later collections. Call this at the end of startup."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(THRESHOLD, 10, 10)
