"""The parts of this deployment, read from Django's settings and not from the environment.

A project may have a database, a layer or a broker of its own. It may lack settings that only
`imgo_site/settings.py` defines.
"""

from pathlib import Path
from typing import Any

from django.conf import settings

from imgo_site.conf import conf

DATABASE_FILE = "imgo.sqlite3"
IN_PROCESS_LAYERS = frozenset(
    {"push.layers.InProcessChannelLayer", "channels.layers.InMemoryChannelLayer"}
)


def redis_url() -> str:
    """Return the URL of Redis, which holds the registry; "" without one."""
    return str(getattr(settings, "REDIS_URL", "") or "")


def broker_url() -> str:
    """Return the URL of the broker of imgo's own tasks; "" if tasks run in this process."""
    return str(getattr(settings, "IMGO_BROKER_URL", "") or "")


def has_workers() -> bool:
    """Return whether tasks go through a broker to workers."""
    return bool(broker_url())


def data_dir() -> Path:
    """Return the directory of the embedded mode's files. It may not exist."""
    return Path(getattr(settings, "DATA_DIR", None) or conf.DATA_DIR).resolve()


def layer() -> str:
    """Return the dotted path of the default channel layer; "" if there is none."""
    layers: Any = getattr(settings, "CHANNEL_LAYERS", None)
    default = layers.get("default") if isinstance(layers, dict) else None
    return str(default.get("BACKEND") or "") if isinstance(default, dict) else ""


def has_own_database() -> bool:
    """Return whether the database is the SQLite file that imgo creates in its data directory.

    The operator has chosen any other database, including another SQLite file.
    """
    default = settings.DATABASES.get("default", {})
    is_sqlite = str(default.get("ENGINE", "")).endswith(".sqlite3")
    path = Path(str(default.get("NAME", "")))
    return is_sqlite and path.is_absolute() and path == data_dir() / DATABASE_FILE


def is_shared_database() -> bool:
    """Return whether several machines can use the database: any database except SQLite."""
    engine = str(settings.DATABASES.get("default", {}).get("ENGINE", ""))
    return not engine.endswith(".sqlite3")


def is_one_process() -> bool:
    """Return whether only one process knows the sessions: no Redis, or an in-process layer."""
    return not redis_url() or layer() in IN_PROCESS_LAYERS


def is_embedded() -> bool:
    """Return whether this is the mode without configuration: own SQLite file, one process."""
    return has_own_database() and not redis_url() and layer() in IN_PROCESS_LAYERS
