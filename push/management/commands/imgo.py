"""`manage.py imgo`: serve HTTP, WebSocket and raw TCP, in one process or in several."""

from argparse import ArgumentParser
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any, ClassVar

from django.conf import global_settings, settings
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.shortcuts import resolve_url
from django.urls import NoReverseMatch, get_script_prefix, reverse

from imgo_site import open_files
from imgo_site.conf import conf
from imgo_site.deployment import has_workers, is_embedded, is_one_process, is_shared_database
from imgo_site.names import check_number
from push.demo_page import demo
from push.management.console import ImgoCommand
from push.server import node_processes
from push.server.data_dir_lock import hold_data_dir
from push.server.ports import in_url

PROCESSES_MAX = 1000
DATABASES = {"postgresql": "Postgres", "sqlite": "SQLite"}  # by Django's names of vendors


class Command(ImgoCommand):
    """Command that runs a node, or several nodes that share their ports, until stopped."""

    help = (
        "Run a node, which serves HTTP, WebSocket and raw TCP. Without DATABASE_URL and REDIS_URL "
        "this process does everything, on SQLite. docs/reference/settings.md lists the settings, "
        "such as the ports. SIGTERM or Ctrl-C stops it: it closes the sessions over DRAIN_SECONDS."
    )
    requires_system_checks = "__all__"
    examples: ClassVar = ("", "--processes 4")

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the number of nodes; everything else is a setting."""
        parser.add_argument(
            "--processes",
            type=int,
            default=1,
            metavar="N",
            help="run N nodes that share the ports (default 1; at most one a core is useful), and "
            "start a node again when it ends. Needs DATABASE_URL and REDIS_URL. /metrics answers "
            "for all N together",
        )

    def run(self, **options: Any) -> None:
        """Print the addresses and a first push, and serve until stopped."""
        count = check_number(options["processes"], "--processes", lowest=1, highest=PROCESSES_MAX)
        if count > 1 and (is_one_process() or not is_shared_database()):
            raise CommandError(
                "--processes needs DATABASE_URL (Postgres) and REDIS_URL (Redis): without them "
                "messages and sessions are in the memory of one process."
            )
        with hold_data_dir() if is_embedded() else nullcontext():
            _prepare_database()
            greet = _print_nothing
            if options["verbosity"]:
                greet = partial(self._greet, demo.prepare() if demo.is_on() else None)
            connection.close()
            open_files.raise_limit()
            failure = _serve(greet) if count == 1 else _serve_many(count, greet)
        if failure:
            raise CommandError(f"imgo cannot serve: {failure}")
        if options["verbosity"]:
            self.stdout.write("imgo has stopped.")

    def _greet(self, known: dict[str, Any] | None) -> None:
        host = "localhost" if conf.HOST in {"127.0.0.1", "0.0.0.0", "::1", "::"} else conf.HOST  # noqa: S104
        base = f"http://{in_url(host)}:{conf.HTTP_PORT}"
        bus = "this process alone" if is_one_process() else "Redis"
        bus += " and Celery workers" if has_workers() else ""
        lines = [f"imgo, with {DATABASES.get(connection.vendor, connection.vendor)} and {bus}"]
        lines += ["", *_to_open(base, known), ""]
        if known is not None:
            # The operator knows the key of IMGO_API_KEY, and what is printed ends up in logs.
            key = "$IMGO_API_KEY" if conf.API_KEY else known["api_key"]
            lines += ["  A first push:", f"  {demo.curl_line(key, base, known)}", ""]
        ports = [f"HTTP and WebSocket {base} (/sub)"]
        ports += [f"WebSocket port {conf.WS_PORT}"] if conf.WS_PORT else []
        ports += [f"TCP port {conf.TCP_PORT}"] if conf.TCP_PORT else []
        lines += [f"Listening: {', '.join(ports)}. Ctrl-C stops it."]
        if settings.LOGIN_REDIRECT_URL != global_settings.LOGIN_REDIRECT_URL:
            # The page of the project around imgo, which is what its developer wants to open.
            lines += ["", f"  Your site:  {base}{resolve_url(settings.LOGIN_REDIRECT_URL)}"]
        self.stdout.write("\n".join(lines))
        self.stdout.flush()


def _prepare_database() -> None:
    """Migrate the embedded mode's own database. Raises `CommandError` if another is out of date."""
    executor = MigrationExecutor(connection)
    if not executor.migration_plan(executor.loader.graph.leaf_nodes()):
        return
    if not is_embedded():
        raise CommandError("The database is not up to date: run 'manage.py migrate' first.")
    call_command("migrate", verbosity=0)


def _to_open(base: str, known: dict[str, Any] | None) -> list[str]:
    """Return the lines with the pages to open in a browser, and how to sign in."""
    lines = [f"  demo page     {base}{get_script_prefix()}"] if known is not None else []
    try:
        pages = {"dashboard": reverse("imgo:dashboard"), "API docs": reverse("imgo:docs")}
        pages["admin"] = reverse("admin:index")
    except NoReverseMatch:
        return lines
    lines += [f"  {name:<14}{base}{path}" for name, path in pages.items()]
    if known is None or not known["admin"]:
        lines.append("  sign in       as staff; manage.py createsuperuser makes the first user")
    else:
        lines.append(f"  sign in       user {known['admin']}, password {known['admin_password']}")
    if known is not None:
        key = "that of IMGO_API_KEY" if conf.API_KEY else known["api_key"]
        lines.append(f"  API key       {key}")
        if conf.AUTHENTICATE_URL:
            # The demo's tokens, which the page's two clients use, are not accepted then.
            lines.append("  token         only what your backend accepts (AUTHENTICATE_URL)")
        else:
            tokens = known["tokens"].items()
            lines += [f"  token         {token}   (key {key})" for key, token in tokens]
    return lines


def _print_nothing() -> None:
    pass


def _serve(greet: Callable[[], None]) -> str:
    """Serve until stopped; return why the server failed, or "".

    `greet`: called once all ports listen.
    """
    # Imported late: it installs Twisted's asyncio reactor.
    from imgo_site.asgi import application
    from imgo_site.postgres.limits import limit_statements

    limit_statements()
    from push.server.server import ImgoServer

    server = ImgoServer(application, greet)
    server.run()
    return server.failure


def _serve_many(count: int, greet: Callable[[], None]) -> str:
    try:
        node_processes.run(count, greet)
    except node_processes.PortTaken as error:
        return str(error)
    return ""
