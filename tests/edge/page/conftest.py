"""Real Chromium before a stand-in for the edge, in one event loop, so that a test decides what happens when."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Error, Page, async_playwright

from tests.edge.page.standin import StandIn, serving
from tests.parts.chromium import chromium
from tests.parts.part import Missing

# Violations are told to the page as events; they are kept where the test finds them.
WATCH = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) =>
  window.violations.push(`${event.violatedDirective}: ${event.blockedURI}`));
"""
# Chromium says so of every answer that is a refusal, which is what some tests are about.
REFUSAL = "Failed to load resource: the server responded with a status of"
# It has asked all that it asks when it is opened.
STARTED = "#gallery-empty:not([hidden]), #gallery li, #key-error:not([hidden])"


@dataclass
class Tab:
    """A page, its edge, and whatever went wrong in it."""

    page: Page
    edge: StandIn
    errors: list[str] = field(default_factory=list)

    async def generate(self, prompt: str = "a quiet harbour") -> str:
        """Ask for a picture; returns the job's id."""
        await self.page.get_by_label("Prompt", exact=True).fill(prompt)
        await self.page.get_by_role("button", name="Generate").click()
        return await self.edge.created()


Open = Callable[..., Awaitable[Tab]]


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def browser() -> AsyncIterator[Browser]:
    """One browser for all tests here."""
    try:
        path = chromium()
    except Missing as missing:
        pytest.skip(str(missing))
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path)
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope="package")
async def edge() -> AsyncIterator[StandIn]:
    """The stand-in; a test may change it before it opens the page."""
    async with serving(StandIn()) as standin:
        yield standin


@pytest_asyncio.fixture(loop_scope="package")
async def open_page(browser: Browser, edge: StandIn) -> AsyncIterator[Open]:
    """Opens the page; afterwards no error may be on its console, and nothing may have met its policy."""
    contexts: list[BrowserContext] = []
    tabs: list[Tab] = []

    async def opened(fragment: str = "", **options: Any) -> Tab:
        options = {"viewport": {"width": 1280, "height": 900}} | options
        context = await browser.new_context(**options)
        context.set_default_timeout(20_000)
        contexts.append(context)
        page = await context.new_page()
        tab = Tab(page, edge)
        tabs.append(tab)

        def said(message: ConsoleMessage) -> None:
            if message.type in ("error", "warning") and not message.text.startswith(REFUSAL):
                tab.errors.append(message.text)

        def thrown(error: Error) -> None:
            tab.errors.append(str(error))

        page.on("console", said)
        page.on("pageerror", thrown)
        await page.add_init_script(WATCH)
        await page.goto(f"{edge.url}/{fragment}")
        await page.wait_for_selector(STARTED, state="attached")
        return tab

    yield opened
    for tab in tabs:
        violations = await tab.page.evaluate("window.violations")
        assert (tab.errors, violations) == ([], [])
    for context in contexts:
        await context.close()
