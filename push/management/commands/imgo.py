"""`manage.py imgo`: serve HTTP, WebSocket and raw TCP in one process."""

from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from imgo_site.conf import conf
from push import demo


class Command(BaseCommand):
    """Serve."""

    help = "Serve HTTP, WebSocket and raw TCP: the node, and with no environment set everything."
    requires_system_checks = "__all__"

    def add_arguments(self, parser: ArgumentParser) -> None:
        """No arguments of its own: the settings say where to listen."""
        parser.epilog = "Ports and the rest are set in the environment: see the README."

    def handle(self, *args: Any, **options: Any) -> None:  # noqa: ARG002
        """Print what to open and what to type, and serve until stopped."""
        executor = MigrationExecutor(connection)
        if executor.migration_plan(executor.loader.graph.leaf_nodes()):
            raise CommandError("The database is not up to date: run 'manage.py migrate' first.")
        self._greet(demo.prepare() if demo.is_on() else None)
        connection.close()
        # Imported late: it installs Twisted's asyncio reactor.
        from imgo_site.asgi import application
        from push.door import ImgoServer

        server = ImgoServer(application)
        server.run()
        if server.failure:
            raise CommandError(f"imgo cannot serve: {server.failure}")
        self.stdout.write("imgo has stopped.")

    def _greet(self, known: dict[str, Any] | None) -> None:
        host = "localhost" if conf.HOST in {"127.0.0.1", "0.0.0.0", "::1", "::"} else conf.HOST  # noqa: S104
        base = f"http://{host}:{conf.HTTP_PORT}"
        mode = "Postgres" if settings.DATABASE_URL else "SQLite"
        bus = "Redis and Celery workers" if settings.REDIS_URL else "this process alone"
        lines = [f"imgo, with {mode} and {bus}", ""]
        if known is not None:
            lines += [
                f"  demo page     {base}/",
                f"  admin         {base}/admin/   user {demo.ADMIN}, "
                f"password {known['admin_password']}",
                f"  API key       {conf.API_KEY or known['api_key']}",
                *(
                    f"  token         {token}   (key {key})"
                    for key, token in known["tokens"].items()
                ),
                "",
                "  A first push:",
                f"  {demo.curl_line(conf.API_KEY or known['api_key'], base)}",
                "",
            ]
        ports = [f"HTTP and WebSocket {base} (/sub)"]
        ports += [f"WebSocket port {conf.WS_PORT}"] if conf.WS_PORT else []
        ports += [f"TCP port {conf.TCP_PORT}"] if conf.TCP_PORT else []
        lines += [f"Listening: {', '.join(ports)}. Ctrl-C stops it."]
        self.stdout.write("\n".join(lines))
        self.stdout.flush()
