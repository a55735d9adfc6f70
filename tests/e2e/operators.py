"""Operators of an installation: browsers that have signed in at the dashboard."""

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx

from tests import NO_TLS

from .api_client import LIMITS
from .harness import System, logs, manage
from .test_identity import cookie_header
from .world import World

SignIn = Callable[[System], Awaitable["Operator"]]

CREATE = """
from django.contrib.auth.models import User
print(User.objects.create_superuser("operator", password={!r}).pk)
"""
_logins: dict[System, tuple[dict[str, str], str]] = {}


class Operator:
    """The browser of somebody who has signed in, and his primary key."""

    def __init__(self, browser: httpx.AsyncClient, pk: str) -> None:
        self.browser = browser
        self.pk = pk

    async def watch(self, world: World, node: int = 0) -> Any:
        """A dashboard's session; it is not authenticated yet."""
        cookie = cookie_header(dict(self.browser.cookies))
        return await world.connect("text", node, Origin=world.node(node).url, Cookie=cookie)

    async def act(self, action: str, form: dict[str, str]) -> None:
        """Do something and confirm it."""
        token = self.browser.cookies["csrftoken"]
        data = {**form, "confirmed": "1", "csrfmiddlewaretoken": token}
        answer = await self.browser.post(f"/dashboard/act/{action}", data=data)
        assert answer.status_code == 302


async def _first_login(system: System, browser: httpx.AsyncClient) -> tuple[dict[str, str], str]:
    password = secrets.token_urlsafe(12)
    logs.forbid(password)
    options = ("--no-imports", "-v", "0", "-c", CREATE.format(password))
    pk = manage(system.environment, "shell", *options).splitlines()[-1]
    page = await browser.get("/dashboard/", follow_redirects=True)
    assert page.url.path == "/admin/login/"
    token = browser.cookies["csrftoken"]
    form = {"username": "operator", "password": password, "csrfmiddlewaretoken": token}
    answer = await browser.post("/admin/login/?next=/dashboard/", data=form)
    assert answer.headers.get("Location") == "/dashboard/"
    logs.forbid(browser.cookies["sessionid"])
    return dict(browser.cookies), pk


@asynccontextmanager
async def operators() -> AsyncIterator[SignIn]:
    """Give a function that signs an operator in, once in each installation, by the admin's form."""
    async with AsyncExitStack() as stack:

        async def enter_browser(system: System) -> Operator:
            client = httpx.AsyncClient(
                base_url=system.api_url, limits=LIMITS, trust_env=False, verify=NO_TLS
            )
            browser = await stack.enter_async_context(client)
            if system not in _logins:
                _logins[system] = await _first_login(system, browser)
            cookies, pk = _logins[system]
            browser.cookies = httpx.Cookies(cookies)
            return Operator(browser, pk)

        yield enter_browser
