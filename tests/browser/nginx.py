"""A private nginx for the tests, in front of one node: a child process that ends with them.

The program is the machine's. Without it the tests that need it fail, and say what to install;
`make test-long` leaves them out then, and says so.
"""

import os
import shutil
import socket
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.services import Server

SBIN = "/usr/sbin:/usr/local/sbin"  # where Debian has it, which is not on every user's PATH
MISSING = (
    "There is no nginx. Debian's: apt-get install nginx-light. "
    "Without these tests: TESTS_WITHOUT_NGINX=1"
)
# How it treats the responses of the node.
BUFFERING = {
    "off": "proxy_buffering off;",
    "on": "proxy_buffering on;",
    "forced": "proxy_buffering on; proxy_ignore_headers X-Accel-Buffering;",
}
CONFIGURATION = """
daemon off;
worker_processes 1;
{user}
pid {home}/pid;
events {{ worker_connections 200; }}
http {{
    access_log off;
    client_body_temp_path {home}/body;
    proxy_temp_path {home}/proxy;
    fastcgi_temp_path {home}/fastcgi;
    uwsgi_temp_path {home}/uwsgi;
    scgi_temp_path {home}/scgi;
    server {{
        listen 127.0.0.1:{port};
        location / {{
            # As it comes with nginx: without the headers of an upgrade, so WebSockets are blocked.
            proxy_pass http://127.0.0.1:{node};
            proxy_set_header Host $http_host;
            {buffering}
        }}
    }}
}}
"""


class Nginx(Server):
    """nginx before a node's port. `buffering`: one of `BUFFERING`."""

    title = "nginx"

    def __init__(self, node: int, buffering: str) -> None:
        path = f"{os.environ.get('PATH', '')}:{SBIN}"
        self._program = shutil.which("nginx", path=path)
        if self._program is None:
            pytest.fail(MISSING, pytrace=False)
        super().__init__(Path(tempfile.mkdtemp(prefix="imgo-nginx-", dir="/tmp")))
        self._node = node
        self._buffering = BUFFERING[buffering]

    @property
    def url(self) -> str:
        return f"http://localhost:{self.port}"

    def _command(self) -> Sequence[str | Path]:
        configuration = self.home / "nginx.conf"
        configuration.write_text(
            CONFIGURATION.format(
                user="user root;" if os.geteuid() == 0 else "",  # the directory is this user's
                home=self.home,
                port=self.port,
                node=self._node,
                buffering=self._buffering,
            )
        )
        return [str(self._program), "-e", self.home / "errors", "-c", configuration]

    def _answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=2).close()
        except OSError:
            return False
        return True
