"""The example `beside`: imgo and a shop, started by one program, and people with a browser."""

import json
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import httpx

from tests import NO_TLS
from tests.e2e.harness import Process, base_environment, free_ports, logs

FIELD = re.compile(r'name="csrfmiddlewaretoken" value="(\w+)"')
USER = re.compile(r"^  (\w+) \(.+\), password (\w+)$", re.MULTILINE)


class Beside(Process):
    """`python examples/beside/start.py`, with data and ports of its own."""

    def __init__(self, home: Path) -> None:
        self.imgo_port, self.port = free_ports(2)
        self.url = f"http://localhost:{self.port}"
        more = {
            "IMGO_DATA_DIR": str(home / "data"),
            "IMGO_HTTP_PORT": str(self.imgo_port),
            "IMGO_WS_PORT": "0",
            "IMGO_TCP_PORT": "0",
            "SHOP_PORT": str(self.port),
        }
        name = f"beside-{secrets.token_hex(2)}"
        super().__init__(home, name, ["examples/beside/start.py"], {**base_environment(), **more})

    def is_ready(self) -> bool:
        """Return whether the last line of the greeting is there."""
        return f"The shop: {self.url}/" in self.out.read_text()

    def passwords(self) -> dict[str, str]:
        """Return those of the users, as they are printed."""
        found = dict(USER.findall(self.out.read_text()))
        for password in found.values():
            logs.forbid(password)
        return found


@contextmanager
def running(home: Path) -> Iterator[Beside]:
    """Start both; at the end stop both in order."""
    beside = Beside(home)
    beside.start()
    try:
        yield beside
        beside.stop()
    finally:
        beside.kill()


class Person:
    """A browser without scripts, somebody signed in to the shop with it."""

    def __init__(self, shop: Beside, name: str) -> None:
        self.http = httpx.Client(
            base_url=shop.url, timeout=30, trust_env=False, verify=NO_TLS, follow_redirects=True
        )
        form = self.http.get("/")
        fields = {"username": name, "password": shop.passwords()[name]}
        token = {"csrfmiddlewaretoken": FIELD.findall(form.text)[-1]}
        answer = self.http.post(str(form.url), data={**fields, **token})
        assert answer.url.path == "/", answer.text
        self.page = answer.text
        self._headers = {"X-CSRFToken": FIELD.findall(self.page)[-1]}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    @property
    def attributes(self) -> dict[str, str]:
        """Return what `{% imgo %}` gives the page's script."""
        return dict(re.findall(r' data-imgo-([a-z-]+)="([^"]*)"', self.page))

    def token(self) -> str:
        """Fetch a token as the page's script does."""
        origin = {"Origin": str(self.http.base_url).rstrip("/")}
        answer = self.http.post(self.attributes["token-url"], headers=origin)
        return str(answer.json()["token"])

    def post(self, path: str, **data: Any) -> httpx.Response:
        """Call the shop's API."""
        return self.http.post(path, json=data, headers=self._headers)

    def listed(self, path: str) -> list[dict[str, Any]]:
        """Return what a list of the shop's API has."""
        found: list[dict[str, Any]] = json.loads(self.http.get(path).text)["results"]
        return found
