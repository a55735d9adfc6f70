"""Check of `REPLICA_DATABASE`."""

from collections.abc import Iterator

from django.conf import settings
from django.core.checks import CheckMessage, Error, register
from django.db import DEFAULT_DB_ALIAS, router

from imgo_site.conf import conf
from imgo_site.postgres.url import ENGINE
from imgo_site.replica import ReplicaRouter
from push.checks.reading import with_settings

ROUTER = f"{ReplicaRouter.__module__}.{ReplicaRouter.__qualname__}"


@register
@with_settings
def check_replica() -> Iterator[CheckMessage]:
    """E057: a REPLICA_DATABASE that cannot be read from."""
    alias = conf.REPLICA_DATABASE
    if not alias:
        return
    problem, hint = _problem_of(alias)
    if problem:
        yield Error(f"REPLICA_DATABASE is {alias!r}, {problem}.", hint=hint, id="imgo.E057")


def _problem_of(alias: str) -> tuple[str, str]:
    if alias == DEFAULT_DB_ALIAS:
        return "which is the primary", "Name the alias of a standby, or leave it empty."
    if alias not in settings.DATABASES:
        return "which is no alias in DATABASES", f"Aliases: {', '.join(settings.DATABASES)}."
    for name in (DEFAULT_DB_ALIAS, alias):
        if settings.DATABASES[name].get("ENGINE") != ENGINE:
            return (
                f"and the database {name!r} is not one of imgo's engine",
                f"Use Postgres, with the ENGINE {ENGINE!r}.",
            )
    if not any(isinstance(installed, ReplicaRouter) for installed in router.routers):
        return (
            "and DATABASE_ROUTERS lacks imgo's router, so that nothing would read from it",
            f"Add {ROUTER!r} to DATABASE_ROUTERS.",
        )
    return "", ""
