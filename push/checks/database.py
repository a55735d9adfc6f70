"""Checks of the project's database: settings with which imgo's statements would fail."""

from collections.abc import Iterator

from django.apps import apps
from django.core import checks
from django.core.checks import CheckMessage, Error, register
from django.db import DEFAULT_DB_ALIAS, connection, connections, router
from django.db.models import Model

OWN_APPS = ("accounts", "offline", "push")
VENDORS = frozenset(["postgresql", "sqlite"])
POOL_MIN = 3  # connections: the two of DATABASE_THREADS, and one for the API


@register
def check_vendor(**_: object) -> list[CheckMessage]:
    """E028: a database that is neither Postgres nor SQLite."""
    if connection.vendor in VENDORS:
        return []
    return [
        Error(
            f"The database is {connection.vendor!r}: imgo's statements and locks are written for "
            "Postgres and SQLite.",
            hint="Set DATABASE_URL to a Postgres, or DATABASES['default'] to a Postgres or an "
            "SQLite file.",
            id="imgo.E028",
        )
    ]


@register
def check_wrapper(**_: object) -> list[CheckMessage]:
    """W037: a Postgres that is not used through imgo's database backend."""
    wrapper = connections[DEFAULT_DB_ALIAS]
    if wrapper.vendor != "postgresql":
        return []
    # Imported here: it loads psycopg, which a project on SQLite does not need.
    from imgo_site.postgres.base import DatabaseWrapper

    if isinstance(wrapper, DatabaseWrapper):
        return []
    return [
        checks.Warning(
            "DATABASES['default'] is a Postgres without imgo's backend: DATABASE_TIMEOUT has no "
            "effect. While the server is silent, pushes wait and get no answer.",
            hint="Set DATABASES = {'default': imgo_site.postgres.url.parse(url, 4)}: see "
            "docs/howto/project.md.",
            id="imgo.W037",
        )
    ]


@register
def check_autocommit(**_: object) -> list[CheckMessage]:
    """E043: a database with AUTOCOMMIT off, in which no push would be committed."""
    if connection.settings_dict.get("AUTOCOMMIT", True):
        return []
    return [
        Error(
            "DATABASES['default'] has AUTOCOMMIT off: imgo begins and ends its transactions "
            "itself, and no push would be accepted.",
            hint="Remove AUTOCOMMIT from DATABASES['default'].",
            id="imgo.E043",
        )
    ]


@register
def check_routers(**_: object) -> list[CheckMessage]:
    """E044: DATABASE_ROUTERS that send imgo's rows to another database than the default one."""
    try:
        elsewhere = sorted(
            {
                f"{model._meta.label} to {alias!r}"
                for model in _own_models()
                for alias in (router.db_for_read(model), router.db_for_write(model))
                if alias != DEFAULT_DB_ALIAS
            }
        )
        problem = f"send {', '.join(elsewhere)}" if elsewhere else ""
    except Exception as error:  # noqa: BLE001 - a router may raise anything
        problem = f"cannot be asked ({type(error).__name__}: {error})"
    if not problem:
        return []
    return [
        Error(
            f"DATABASE_ROUTERS {problem}: imgo's statements and transactions are of the default "
            "database.",
            hint=f"Have them return None for the apps {', '.join(OWN_APPS)}.",
            id="imgo.E044",
        )
    ]


def _own_models() -> Iterator[type[Model]]:
    for label in OWN_APPS:
        if apps.is_installed(label):
            yield from apps.get_app_config(label).get_models()


@register
def check_pool(**_: object) -> list[CheckMessage]:
    """E024: a database pool with too few connections for a node."""
    pool = connection.settings_dict.get("OPTIONS", {}).get("pool")
    if not isinstance(pool, dict):
        return []
    size = int(pool.get("max_size") or pool.get("min_size") or POOL_MIN)
    if size >= POOL_MIN:
        return []
    return [
        Error(
            f"The database's pool has {size} connections: logins and the API would wait for each "
            "other until they time out.",
            hint=f"Set max_size of OPTIONS['pool'] (DATABASE_POOL_SIZE) to {POOL_MIN} or more.",
            id="imgo.E024",
        )
    ]
