"""How the page looks and reaches people: small screens, dark rooms, keyboards, screen readers."""

import pytest
from playwright.async_api import Page, expect

from tests.edge.page.conftest import Open, Tab
from tests.edge.page.standin import StandIn

pytestmark = pytest.mark.asyncio(loop_scope="package")

PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}

# Every visible text → its contrast with what is behind it (WCAG 2.2, relative luminance and contrast ratio).
CONTRASTS = """() => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const channel = (c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const luminance = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const behind = (node) => {
    for (; node; node = node.parentElement) {
      const color = parse(getComputedStyle(node).backgroundColor);
      if ((color[3] ?? 1) === 1) return color;
    }
    throw new Error("nothing is behind it");
  };
  const found = [];
  const add = (node, color, text) => {
    const [a, b] = [luminance(parse(color)), luminance(behind(node))];
    found.push([(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), text]);
  };
  for (const node of document.querySelectorAll("body *")) {
    if (!node.checkVisibility({ visibilityProperty: true }) || node.closest(".unseen")) continue;
    const own = [...node.childNodes].filter((child) => child.nodeType === 3).map((child) => child.data.trim()).join("");
    if (own || node.value) add(node, getComputedStyle(node).color, own || node.value);
    if (node.placeholder) add(node, getComputedStyle(node, "::placeholder").color, node.placeholder);
  }
  return found;
}"""
NAMELESS = """() => [...document.querySelectorAll("button, a, input, select, textarea, summary, img, canvas, progress")]
  .filter((node) => node.checkVisibility() && !node.closest("header h1"))
  .filter((node) => !(node.labels?.length || node.ariaLabel || node.textContent.trim() || node.alt || node.title
    || node.querySelector("img[alt]:not([alt=''])")))
  .map((node) => node.outerHTML)"""
TWICE = """() => { const ids = [...document.querySelectorAll("[id]")].map(({ id }) => id);
  return ids.filter((id, i) => ids.indexOf(id) !== i); }"""
DANGLING = """() => [...document.querySelectorAll("[aria-describedby], [aria-labelledby], [for]")].flatMap((node) =>
  ["aria-describedby", "aria-labelledby", "for"].flatMap((name) => (node.getAttribute(name) ?? "").split(" ")))
  .filter((id) => id && !document.getElementById(id) && id !== "details-title")"""
SMALL = """() => [...document.querySelectorAll("button, a, input, select, textarea, summary")]
  .filter((node) => node.checkVisibility() && !node.matches(".skip"))
  .filter((node) => node.getBoundingClientRect().height < 40).map((node) => node.outerHTML)"""
SIDEWAYS = "document.scrollingElement.scrollWidth - document.scrollingElement.clientWidth"


async def with_everything(tab: Tab) -> str:
    """A page on which nearly all there is to see can be seen: an error, a cold start, steps, a gallery."""
    page, edge = tab.page, tab.edge
    await page.get_by_label("Steps", exact=True).fill("900")
    await page.get_by_label("Prompt", exact=True).fill("a-prompt-without-any-space-" * 12)
    await page.get_by_role("button", name="Generate").click()
    await expect(page.get_by_label("Steps", exact=True)).to_have_attribute("aria-invalid", "true")
    await page.get_by_label("Steps", exact=True).fill("30")
    await page.get_by_role("button", name="Generate").click()
    id = await edge.created()
    for second, phase in enumerate(("unreachable", "starting", "torch", "a_phase_with_quite_a_long_name", "warm")):
        edge.tell(id, "waking", phase=phase, seconds=float(second), eta=30.0)
    edge.tell(id, "progress", step=2, steps=30)
    await expect(page.get_by_text("Step 2 of 30", exact=True).first).to_be_visible()
    return id


async def is_sound(page: Page) -> None:
    assert [(ratio, text) for ratio, text in await page.evaluate(CONTRASTS) if ratio < 4.5] == []
    for check in (NAMELESS, TWICE, DANGLING):
        assert await page.evaluate(check) == []


@pytest.fixture
def furnished(edge: StandIn) -> StandIn:
    edge.finish(edge.add({"prompt": "two circles", "n": 2}).id)
    edge.finish(edge.add({"prompt": "a square"}).id)
    return edge


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_everything_can_be_read_and_has_a_name(open_page: Open, furnished: StandIn, scheme: str) -> None:
    tab = await open_page(color_scheme=scheme, reduced_motion="reduce")
    await is_sound(tab.page)
    id = await with_everything(tab)
    await is_sound(tab.page)
    furnished.finish(id, cold_start=True)
    await expect(tab.page.locator("#result")).to_be_visible()
    await is_sound(tab.page)
    await tab.page.get_by_role("button", name="two circles").click()
    await expect(tab.page.get_by_role("dialog")).to_be_visible()
    await is_sound(tab.page)


async def test_dark_rooms_get_a_dark_page(open_page: Open) -> None:
    brightness = "getComputedStyle(document.documentElement).backgroundColor.match(/\\d+/g).map(Number)"
    dark = await open_page(color_scheme="dark")
    assert max(await dark.page.evaluate(brightness)) < 40
    light = await open_page(color_scheme="light")
    assert min(await light.page.evaluate(brightness)) > 220


async def test_a_phone_scrolls_one_way_only(open_page: Open, furnished: StandIn) -> None:
    tab = await open_page(**PHONE)
    page = tab.page
    assert await page.evaluate(SIDEWAYS) == 0
    assert await page.evaluate(SMALL) == []
    id = await with_everything(tab)
    assert await page.evaluate(SIDEWAYS) == 0
    furnished.finish(id, cold_start=True)
    await expect(page.locator("#result")).to_be_visible()
    assert await page.evaluate(SIDEWAYS) == 0
    await page.get_by_role("button", name="two circles").click()
    dialog = page.get_by_role("dialog")
    await expect(dialog).to_be_visible()
    assert await dialog.evaluate("node => node.scrollWidth - node.clientWidth") == 0
    await page.get_by_role("button", name="Close").click()
    await page.locator("summary").click()
    assert await page.evaluate(SIDEWAYS) == 0


async def test_on_a_phone_what_happens_comes_into_view(open_page: Open) -> None:
    tab = await open_page(**PHONE)
    await tab.generate()
    await expect(tab.page.locator("#state")).to_be_in_viewport()


async def test_reduced_motion_stands_still(open_page: Open) -> None:
    tab = await open_page(reduced_motion="reduce")
    id = await tab.generate()
    tab.edge.tell(id, "waking", phase="starting", seconds=1.0, eta=9.0)
    await expect(tab.page.locator("#cold")).to_be_visible()
    assert await tab.page.evaluate("document.getAnimations().length") == 0


async def test_the_keyboard_is_enough(open_page: Open, furnished: StandIn) -> None:
    tab = await open_page()
    page, keys = tab.page, tab.page.keyboard

    async def to(role: str, name: str, key: str = "Tab") -> None:
        target = page.get_by_role(role, name=name, exact=True)  # type: ignore[arg-type]
        for _ in range(60):
            if await target.evaluate("node => node === document.activeElement"):
                return
            await keys.press(key)
        raise AssertionError(f"{role} {name!r} is never reached")

    await keys.press("Tab")
    await expect(page.get_by_role("link", name="Skip to the prompt")).to_be_focused()
    await keys.press("Enter")
    await keys.type("a circle")
    await to("spinbutton", "Steps")
    await keys.type("9")
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    assert await page.evaluate(outline) == "solid"
    await to("textbox", "Prompt", "Shift+Tab")
    await keys.press("Control+Enter")
    id = await furnished.created()
    assert furnished.posted()["num_inference_steps"] == 9
    await to("button", "Cancel")
    await keys.press("Space")
    await expect(page.locator("#state")).to_have_text("Cancelled.")
    assert furnished.jobs[id].state == "cancelled"
    await to("button", "two circles (2 pictures)")
    await keys.press("Enter")
    dialog = page.get_by_role("dialog", name="two circles")
    await expect(dialog).to_be_visible()
    await expect(dialog.get_by_role("button", name="Close")).to_be_focused()
    await keys.press("Escape")
    await expect(dialog).to_be_hidden()
    await expect(page.get_by_role("button", name="two circles (2 pictures)", exact=True)).to_be_focused()


async def test_what_happens_is_told_to_who_does_not_see_it(open_page: Open) -> None:
    tab = await open_page()
    live = tab.page.get_by_role("status")
    await expect(live).to_have_attribute("aria-live", "polite")
    id = await tab.generate()
    tab.edge.tell(id, "waking", phase="starting", seconds=1.0, eta=9.0)
    await expect(live).to_have_text("Waking the GPU")
    for step in range(1, 11):
        tab.edge.tell(id, "progress", step=step, steps=30)
    await expect(tab.page.locator("#state")).to_have_text("Step 10 of 30")
    await expect(live).to_have_text("Step 8 of 30")  # a quarter, not every step
    tab.edge.finish(id)
    await expect(live).to_contain_text("Done in")
