"""The page "Beside your Django project" does what it says, up to the message of a real session."""

import asyncio
import re
from collections.abc import Callable, Iterator

import httpx
import pytest

from imgo_client import Client
from tests import NO_TLS, PATIENCE
from tests.e2e.harness import Embedded

from .mysite import running

# The page as it is written: what its parts do is proven by other tests.
pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def site(
    make_embedded: Callable[..., Embedded], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The address of the page's project."""
    with running(tmp_path_factory.mktemp("mysite"), make_embedded()) as url:
        yield url


@pytest.fixture
def alice(site: str) -> Iterator[httpx.Client]:
    """A browser in which she has signed in, with the password of the page."""
    with httpx.Client(
        base_url=site, trust_env=False, verify=NO_TLS, follow_redirects=True
    ) as browser:
        browser.get("/")
        fields = {
            "username": "alice",
            "password": "secret",
            "csrfmiddlewaretoken": browser.cookies["csrftoken"],
        }
        assert browser.post("/admin/login/?next=/", data=fields).url.path == "/"
        yield browser


def attributes(page: str) -> dict[str, str]:
    """Return what `{% imgo %}` tells its script."""
    return dict(re.findall(r' data-imgo-([a-z-]+)="([^"]*)"', page))


async def test_order_arrives_at_a_session_with_the_pages_token(alice: httpx.Client) -> None:
    """The token comes from the project's view, as the page's script requests it."""
    page = await asyncio.to_thread(alice.get, "/")
    given = attributes(page.text)
    origin = {"Origin": str(alice.base_url).rstrip("/")}
    answer = await asyncio.to_thread(alice.post, given["token-url"], headers=origin)
    async with Client(given["socket"], answer.json()["token"]) as client:
        headers = {"X-CSRFToken": alice.cookies["csrftoken"]}
        answer = await asyncio.to_thread(alice.post, "/orders/", headers=headers)
        message = await asyncio.wait_for(anext(aiter(client)), PATIENCE)
    assert message.body == {"order": answer.json()["order"], "status": "placed"}


def test_scripts_of_the_page_can_be_fetched(alice: httpx.Client) -> None:
    """imgo's client comes from another origin, which must allow that."""
    page = alice.get("/").text
    own = re.findall(r'src="([^"]+)"', page)
    assert own == ["/static/imgo_client/page.js", "/static/orders.js"]
    for path in own:
        assert alice.get(path).status_code == 200, path
    script = httpx.get(attributes(page)["script"], trust_env=False, verify=NO_TLS)
    assert script.headers["Access-Control-Allow-Origin"] == "*"
    assert script.headers["Content-Type"].startswith("text/javascript")
