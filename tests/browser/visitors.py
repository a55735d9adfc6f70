"""People with a browser each: their tabs share cookies, and what goes wrong in them is noted."""

import re
import secrets
from typing import Any, Self

from playwright.async_api import (
    BrowserContext,
    ConsoleMessage,
    Page,
    Request,
    Response,
    WebError,
    expect,
)

# Pauses between two attempts of a client are drawn at random: here they are the shortest.
NO_JITTER = "Math.random = () => 0;"
PHONE = {"width": 360, "height": 740}  # CSS pixels of a small one
# What a restart causes; two of them when it comes between a request and its answer. What a client
# has sent for a session of Server-Sent Events that ended with the server is answered with 404, and
# is sent again in the next one. The console's line has no address; the answer's own has one.
SERVER_AWAY = (
    "ERR_CONNECTION_REFUSED",
    "ERR_CONNECTION_RESET",
    "ERR_EMPTY_RESPONSE",
    "Connection closed before receiving a handshake response",
    r"404 \S+/sub/events/[0-9a-f]+-\d+$",
    r"the server responded with a status of 404",
)
BROKEN_OFF = "net::ERR_ABORTED"  # a request of a page that was left or closed meanwhile


class Visitor:
    """Somebody with a browser: tabs, and the complaints of all their pages."""

    def __init__(self, context: BrowserContext) -> None:
        self.context = context
        self._complaints: list[str] = []
        self._expected: list[str] = []
        context.on("console", self._heard)
        context.on("weberror", self._threw)
        context.on("requestfailed", self._failed)
        context.on("response", self._answered)

    async def open(self, path: str) -> Page:
        """A new tab with a page."""
        page = await self.context.new_page()
        await page.goto(path)
        return page

    def expect_complaints(self, *patterns: str) -> None:
        """What the test causes on purpose is none."""
        self._expected += patterns

    @property
    def complaints(self) -> list[str]:
        """Errors and warnings in the console, failed requests, answers that are errors."""
        return [
            found
            for found in self._complaints
            if not any(re.search(pattern, found) for pattern in self._expected)
        ]

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning", "assert"}:
            self._complaints.append(f"{message.type}: {message.text}")

    def _threw(self, error: WebError) -> None:
        self._complaints.append(f"uncaught: {error.error}")

    def _failed(self, request: Request) -> None:
        if request.failure != BROKEN_OFF:
            self._complaints.append(f"{request.method} {request.url}: {request.failure}")

    def _answered(self, response: Response) -> None:
        if response.status >= 400:
            self._complaints.append(f"{response.status} {response.url}")


class Inbox:
    """A tab with the page of `app/`, which shows what is pushed to the user."""

    def __init__(self, page: Page, key: str) -> None:
        self.page = page
        self.key = key
        self.state = page.get_by_role("status")
        self.messages = page.get_by_role("listitem")

    @classmethod
    async def enter(cls, visitor: Visitor, name: str) -> Self:
        """Sign in as a user, in a new tab; when this returns the client is connected."""
        page = await visitor.open(f"/enter/{name}")
        inbox = cls(page, await page.locator("#key").inner_text())
        await expect(inbox.state).to_have_text("open")
        return inbox

    async def shows_more(self) -> None:
        """Wait until it shows some more than it does."""
        count = await self.messages.count()
        await expect(self.messages.nth(count + 5)).to_be_visible()


async def width(page: Page) -> int:
    """CSS pixels, with what can only be seen by scrolling sideways."""
    found: int = await page.evaluate("document.documentElement.scrollWidth")
    return found


def new_text() -> str:
    """A text that no other test uses."""
    return f"text {secrets.token_hex(8)}"


def numbers(first: int, last: int) -> list[Any]:
    """What a list with these messages shows."""
    return [str(number) for number in range(first, last + 1)]
