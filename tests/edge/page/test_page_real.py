"""The page in front of the real edge and the real predictor, from a key in the address to a picture of the prompt."""

import asyncio
import base64
import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image
from playwright.async_api import Browser, expect

from predictor.lab.shapes.checker import check
from tests.conftest import Predictor
from tests.edge.page.conftest import WATCH
from tests.edge.running import Edge
from tests.processes import free_port

pytestmark = pytest.mark.asyncio(loop_scope="package")

IMAGE = """async (image) => {
  const blob = await (await fetch(image.src)).blob();
  const bytes = new Uint8Array(await blob.arrayBuffer());
  return btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
}"""


async def test_somebody_wakes_a_gpu_watches_it_and_gets_the_picture(
    browser: Browser, start_edge: Callable[..., Edge], start_predictor: Callable[..., Predictor]
) -> None:
    port = free_port()
    edge = await asyncio.to_thread(start_edge, f"http://127.0.0.1:{port}")
    key = await asyncio.to_thread(edge.key, "--name", "page")
    page = await browser.new_page(viewport={"width": 1280, "height": 1150})
    page.set_default_timeout(60_000)
    await page.add_init_script(WATCH)
    await page.goto(f"{edge.url}/#key={key}")
    await expect(page).to_have_url(f"{edge.url}/")
    await page.get_by_label("Prompt", exact=True).fill("a large yellow star on a blue background")
    await page.get_by_label("Seed", exact=True).fill("7")
    await page.get_by_label("Steps", exact=True).fill("40")
    await page.get_by_role("button", name="Generate").click()
    await expect(page.get_by_text("Waiting for a machine").first).to_be_visible(timeout=60_000)
    await asyncio.to_thread(start_predictor, http_port=port, ready=False)
    await expect(page.locator("#frame canvas.drawn")).to_be_visible(timeout=60_000)
    picture = page.locator("#frame").get_by_role("img", name="a large yellow star on a blue background")
    await expect(picture).to_have_js_property("naturalWidth", 128, timeout=60_000)
    file = base64.b64decode(await picture.evaluate(IMAGE))
    with Image.open(io.BytesIO(file)) as image:
        assert image.info["parameters"].startswith("a large yellow star on a blue background\n")
        found = check(np.asarray(image.convert("RGB")))
    assert (found.shape, found.colour, found.background) == ("star", "yellow", "blue")
    await expect(page.locator("#gallery li")).to_have_count(1)
    assert await page.evaluate("window.violations") == []
    await page.close()
