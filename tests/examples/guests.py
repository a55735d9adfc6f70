"""The users of the examples: they sign in, fill forms in, and have the session of their page."""

import html
import json
import re
import secrets
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self, TypeVar

import httpx

from tests import NO_TLS
from tests.e2e.api_client import LIMITS
from tests.e2e.clients import TextClient
from tests.e2e.harness import Embedded, System, logs, manage
from tests.e2e.world import World

T = TypeVar("T", bound=System)

FIELD = re.compile(r'name="csrfmiddlewaretoken" value="(\w+)"')
CLIENT = re.compile(r"<script type=\"module\"[^>]*\bdata-imgo-rooms=\"([^\"]*)\"")


@contextmanager
def started(make: Callable[..., T], name: str) -> Iterator[T]:
    """An example on an installation of its own, in the order of `make example`."""
    # Without the rooms with history of other tests, which would replace the example's.
    system = make(DJANGO_SETTINGS_MODULE=f"examples.{name}.settings", IMGO_ROOMS="")
    manage(system.environment, "migrate", "--verbosity", "0")
    with system:
        yield system


def make_guests(system: System, *names: str) -> list[tuple[str, str]]:
    """Users as `make example` makes them, with their passwords."""
    text = manage(system.environment, "guest", *names)
    found = re.findall(r"^  (\w+), password (\w+)$", text, re.MULTILINE)
    assert tuple(name for name, _ in found) == names
    for _, password in found:
        logs.forbid(password)
    return found


def admin_of(system: System) -> tuple[str, str]:
    """Its administrator, made where there is no demo to do it, and the password."""
    if isinstance(system, Embedded):
        return "admin", system.demo()["admin_password"]
    secret = {"DJANGO_SUPERUSER_PASSWORD": secrets.token_urlsafe(12)}
    words = ("createsuperuser", "--noinput", "--username", "admin", "--email", "a@example.com")
    manage({**system.environment, **secret}, *words)
    return "admin", secret["DJANGO_SUPERUSER_PASSWORD"]


class Guest:
    """A browser that runs no scripts, somebody signed in with it."""

    def __init__(self, system: System, name: str) -> None:
        self.name = name
        self.url = system.nodes[0].url
        self.http = httpx.AsyncClient(
            base_url=self.url, timeout=30, limits=LIMITS, trust_env=False, verify=NO_TLS
        )
        self._token = ""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.http.aclose()

    async def sign_in(self, password: str, path: str) -> str:
        """Ask for a page, be sent to sign in, and come back to it; the page."""
        form = await self.http.get(path, follow_redirects=True)
        self._token = FIELD.findall(form.text)[-1]
        await self.http.post(
            str(form.url),
            data={"username": self.name, "password": password, "csrfmiddlewaretoken": self._token},
        )
        logs.forbid(self.http.cookies["sessionid"])
        return await self.page(path)

    async def page(self, path: str) -> str:
        """A page as it is served to this user."""
        answer = await self.http.get(path)
        assert answer.status_code == 200, answer
        if found := FIELD.findall(answer.text):
            self._token = found[-1]
        return answer.text

    async def json(self, path: str) -> Any:
        """What a script of the page gets."""
        return json.loads(await self.page(path))

    async def post(self, path: str, **fields: Any) -> httpx.Response:
        """Send a form of the last page."""
        return await self.http.post(path, data={**fields, "csrfmiddlewaretoken": self._token})

    async def connect(
        self, world: World, page: str, joins: dict[str, Any] | None = None
    ) -> TextClient:
        """The session that `{% imgo %}` opens on this page.

        `joins`: what a script of the page asks for of rooms with history.
        """
        (rooms,) = CLIENT.findall(page)
        cookie = f"sessionid={self.http.cookies['sessionid']}"
        client: TextClient = await world.connect("text", Origin=self.url, Cookie=cookie)
        asked = json.loads(html.unescape(rooms)) if joins is None else joins
        return await client.auth({"rooms": asked, "ack": True})


async def news(client: TextClient, count: int = 1) -> list[Any]:
    """The next messages' bodies, acknowledged as a page does."""
    frames = [await client.receive() for _ in range(count)]
    await client.ack(*frames)
    return [frame.value for frame in frames]


SignIn = Callable[..., Awaitable[tuple[Guest, str]]]
