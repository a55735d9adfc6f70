"""`DATABASE_URL` as Django's settings of a database."""

from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

import dj_database_url

ENGINE = "imgo_site.postgres"

# What libpq does by itself about a server that is gone. Parameters of the URL take precedence.
LINK_OPTIONS: dict[str, Any] = {
    "connect_timeout": 3,  # seconds for each host
    "keepalives_idle": 10,  # seconds
    "keepalives_interval": 3,  # seconds
    "keepalives_count": 3,
    "tcp_user_timeout": 5000,  # milliseconds that sent bytes may stay unacknowledged
    # A standby takes no pushes: after a failover the connection goes to the new primary.
    "target_session_attrs": "read-write",
}
POOL_OPTIONS: dict[str, Any] = {
    "min_size": 1,
    "timeout": 5,  # seconds to wait for a connection; then the request is answered 503
    "reconnect_timeout": 60,  # seconds of attempts; then the next request begins them again
}


def parse(url: str, pool_size: int) -> dict[str, Any]:
    """Return the settings for a URL. Raises `ValueError` if it cannot be read.

    Several hosts are separated by commas: `postgres://user:password@one:5432,two:5432/name`.
    `pool_size`: connections of one process at most.
    """
    parts = urlsplit(url)
    login, at, addresses = parts.netloc.rpartition("@")
    hosts, ports = _split(addresses)
    if len(hosts) > 1:
        parts = parts._replace(netloc=f"{login}{at}{hosts[0]}")
    database: dict[str, Any] = dict(dj_database_url.parse(parts.geturl()))
    if database["ENGINE"] != "django.db.backends.postgresql":
        return database
    if len(hosts) > 1:
        database["HOST"] = ",".join(unquote(host.strip("[]")) for host in hosts)
        database["PORT"] = ",".join(ports) if any(ports) else ""
    options = database.setdefault("OPTIONS", {})
    database["OPTIONS"] = {
        **LINK_OPTIONS,
        "pool": {**POOL_OPTIONS, "max_size": pool_size},
        **options,
    }
    database["ENGINE"] = ENGINE
    return database


def parse_replica(url: str) -> dict[str, Any]:
    """Return the settings for the URL of a standby. Raises `ValueError` if it cannot be read.

    Of several hosts the first standby is used. The connections are read-only: Postgres refuses to
    write through them, also if no host is a standby.
    """
    database = parse(url, 0)
    if database["ENGINE"] != ENGINE:
        raise ValueError("no URL of Postgres")
    options = database["OPTIONS"]
    options["target_session_attrs"] = "prefer-standby"
    del options["pool"]  # pages are rare, and a standby that is gone must fail at once
    extra = options.get("options", "")
    options["options"] = f"{extra} -c default_transaction_read_only=on".strip()
    return database


def _split(addresses: str) -> tuple[list[str], list[str]]:
    """Split `one:5432,[::1]:5433` into hosts and ports; a missing port is ""."""
    parts = [SplitResult("", address, "", "", "") for address in addresses.split(",")]
    ports = ["" if part.port is None else str(part.port) for part in parts]
    hosts = [
        part.netloc[: len(part.netloc) - len(port) - 1] if port else part.netloc
        for part, port in zip(parts, ports, strict=True)
    ]
    if len(hosts) > 1 and not all(hosts):
        raise ValueError("a host is empty")
    return [host.removesuffix(":") for host in hosts], ports
