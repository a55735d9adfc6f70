"""The recipes of docs/howto/frontends.md in a browser, on a site of another origin than imgo's."""

import asyncio
import json
import shutil
import subprocess
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import jwt
import pytest
from playwright.async_api import Browser, Page, expect

from tests import NO_TLS, wait_until
from tests.e2e.harness import HOST, ROOT, Embedded, logs
from tests.e2e.js_page import NODE
from tests.e2e.pages import DOCS, blocks

from .visitors import NO_JITTER, Visitor

pytestmark = pytest.mark.asyncio(loop_scope="session")

PAGE = DOCS / "howto" / "frontends.md"
SECRET = "a secret that both sides know, of enough bytes"
PACKAGE = ROOT / "push" / "static" / "push"
ENTRIES = {
    "react": """
        import { StrictMode } from "react";
        import { createRoot } from "react-dom/client";
        import { Notifications } from "./Notifications.jsx";
        const root = createRoot(document.querySelector("main"));
        root.render(<StrictMode><Notifications /></StrictMode>);
        globalThis.unmount = () => root.unmount();
    """,
    "vue": """
        import { createApp } from "vue";
        import Notifications from "./Notifications.vue";
        const app = createApp(Notifications);
        app.mount("main");
        globalThis.unmount = () => app.unmount();
    """,
}
HTML = '<!doctype html><title>{0}</title><main></main><script type="module" src="/{0}.js"></script>'


class Site(SimpleHTTPRequestHandler):
    """The user's site: files, and tokens for the user that the cookie `user` names."""

    policy = ""

    def end_headers(self) -> None:
        self.send_header("Content-Security-Policy", self.policy)
        super().end_headers()

    def do_POST(self) -> None:
        user = self.headers.get("Cookie", "").partition("user=")[2]
        status = 200 if user and self.path == "/imgo/token/" else 401
        claims = {"sub": user, "exp": int(time.time()) + 60}
        data = json.dumps({"token": jwt.encode(claims, SECRET, "HS256")}).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Print nothing: the log of each request would hide the test's output."""


@contextmanager
def serving(directory: Path, policy: str) -> Iterator[str]:
    handler = type("PolicySite", (Site,), {"policy": policy})
    server = ThreadingHTTPServer((HOST, 0), partial(handler, directory=str(directory)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://{HOST}:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def policy_of_the_page(node: Embedded) -> str:
    """The content security policy that the page gives, for this installation."""
    (text,) = [block.text.strip() for block in blocks(PAGE) if block.text.startswith("script-src")]
    address = f"localhost:{node.nodes[0].http_port}"
    replaced = text.replace("https://push.example.com", f"http://{address}")
    replaced = replaced.replace("wss://push.example.com", f"ws://{address}")
    assert replaced.count(address) == 3
    return replaced


def write_recipes(home: Path, node: Embedded) -> None:
    """Write the files of the page, bundled where they are for a bundler."""
    for block in blocks(PAGE):
        if block.verb == "file":
            path = home / block.rest
            path.parent.mkdir(exist_ok=True)
            text = block.text.replace("localhost:8000", f"localhost:{node.nodes[0].http_port}")
            path.write_text(text)
    shutil.copytree(PACKAGE, home / "node_modules" / "imgo-client")
    for name, entry in ENTRIES.items():
        (home / f"{name}.html").write_text(HTML.format(name))
        source = home / "src" / f"{name}.jsx"
        source.write_text(entry)
        bundle = [NODE, ROOT / "tests" / "js" / "bundle.mjs", source, home / f"{name}.js"]
        done = subprocess.run(bundle, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def node(make_embedded: Callable[..., Embedded]) -> Iterator[Embedded]:
    with make_embedded(IMGO_JWT_SECRET=SECRET) as system:
        yield system
    assert logs.complaints() == []


@pytest.fixture(scope="module")
def site(node: Embedded, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    home = tmp_path_factory.mktemp("site")
    write_recipes(home, node)
    with ExitStack() as stack:
        yield stack.enter_context(serving(home, policy_of_the_page(node)))


Open = Callable[[str], Awaitable[tuple[Visitor, Page]]]


@pytest.fixture
def open_page(chromium: Browser, site: str) -> Open:
    """Opens a recipe's page as a user of the same name."""

    async def enter(name: str) -> tuple[Visitor, Page]:
        context = await chromium.new_context(base_url=site)
        await context.add_init_script(NO_JITTER)
        await context.add_cookies([{"name": "user", "value": name, "url": site}])
        visitor = Visitor(context)
        visitor.expect_complaints("favicon.ico", "404")  # the site has none
        return visitor, await visitor.open(f"/{name}.html")

    return enter


async def push(node: Embedded, key: str, number: int) -> None:
    async with httpx.AsyncClient(base_url=node.api_url, verify=NO_TLS, trust_env=False) as http:
        answer = await http.post(
            "/api/v1/pushes",
            json={"to": {"key": key}, "body": {"id": number, "text": f"message {number}"}},
            headers={"Authorization": f"Api-Key {node.api_key}"},
        )
    assert answer.status_code == 202, answer.text


@pytest.mark.long(but=["react"])
@pytest.mark.parametrize("name", ["react", "vue", "plain"])
async def test_recipe_shows_pending_and_new_messages(
    node: Embedded, open_page: Open, name: str
) -> None:
    await push(node, name, 1)
    visitor, page = await open_page(name)
    await expect(page.locator("output")).to_have_text("open")
    await push(node, name, 2)
    await expect(page.locator("li")).to_have_text(["message 2", "message 1"])
    assert visitor.complaints == []
    await visitor.context.close()


@pytest.mark.long(but=["react"])
@pytest.mark.parametrize("name", ["react", "vue"])
async def test_component_that_is_removed_closes_its_session(
    node: Embedded, open_page: Open, name: str
) -> None:
    visitor, page = await open_page(name)
    await expect(page.locator("output")).to_have_text("open")
    await asyncio.to_thread(wait_for_sessions, node, name, 1)  # StrictMode mounts twice
    await page.evaluate("globalThis.unmount()")
    await asyncio.to_thread(wait_for_sessions, node, name, 0)
    assert visitor.complaints == []
    await visitor.context.close()


def wait_for_sessions(node: Embedded, key: str, count: int) -> None:
    """Wait until the server has as many sessions of a key."""
    headers = {"Authorization": f"Api-Key {node.api_key}"}

    def are_there() -> bool:
        url = f"{node.api_url}/api/v1/keys/{key}"
        answer = httpx.get(url, headers=headers, verify=NO_TLS, trust_env=False)
        return len(answer.json()["sessions"]) == count

    wait_until(are_there)


@pytest.mark.long(but=["plain"])
@pytest.mark.parametrize("name", ["react", "vue", "plain"])
@pytest.mark.long
async def test_recipe_stays_closed_when_nobody_is_signed_in(open_page: Open, name: str) -> None:
    visitor, page = await open_page(name)
    await expect(page.locator("output")).to_have_text("open")
    await visitor.context.clear_cookies()
    visitor.expect_complaints("401")
    await page.reload()
    await expect(page.locator("output")).to_have_text("closed")
    assert visitor.complaints == []
    await visitor.context.close()
