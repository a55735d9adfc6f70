"""State of the hooks on all nodes: calls, failures, and which of them are not called now."""

from push.hooks.figures import HookRow, sums
from push.registry.base import ProcessEntry
from push.registry.select import get_registry

EFFECTS = {
    "authenticate": "clients are refused with 4013 and come back later",
    "authorize_room": "clients cannot join rooms, and some are refused with 4013",
    "receive": "messages of clients are answered with an error",
}


def of_processes(processes: list[ProcessEntry]) -> list[HookRow]:
    """Return a row for each hook that the nodes among these processes have, with their sums."""
    return sums((process.name, process.hooks) for process in processes if process.kind == "node")


def of_nodes() -> list[HookRow]:
    """Return a row for each hook that the live nodes have. Raises `Unavailable`."""
    return of_processes(get_registry().processes())


def obstacles(rows: list[HookRow]) -> list[str]:
    """Return a sentence for each hook that is not called now, because it kept failing.

    `rows`: as `of_nodes` returns them.
    """
    sentences = []
    for row in rows:
        if row["open_on"]:
            hook, nodes = row["hook"], ", ".join(row["open_on"])
            sentences.append(
                f"The hook {hook} kept failing, and is called only now and then by {nodes}: "
                f"{EFFECTS[hook]}. 'manage.py hooks ping' shows your backend's answer."
            )
    return sentences
