"""What a user does with the page, in real Chromium."""

import asyncio
import base64
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import expect

from predictor.core.problems import EngineLost, QuotaExceeded, StoreUnavailable
from tests.edge.page.conftest import Open
from tests.edge.page.standin import CAPABILITIES, StandIn, picture

pytestmark = pytest.mark.asyncio(loop_scope="package")

KEY = "sk-sdz-" + "k" * 43
HOSTILE = """<img src=x onerror="document.title='owned'"><script>document.title='owned'</script>"""
START = (("unreachable", 0.0), ("starting", 4.4), ("torch", 6.1), ("weights_on_device", 9.2))


def preview(noise: float) -> list[str]:
    return [base64.b64encode(picture(7, noise, 64)).decode()]


async def test_a_picture_from_prompt_to_download(open_page: Open) -> None:
    tab = await open_page()
    page, edge = tab.page, tab.edge
    await page.get_by_label("Steps", exact=True).fill("12")
    await page.get_by_label("Size", exact=True).select_option("592x440")
    id = await tab.generate("a red circle")
    assert edge.posted() == {
        "model": "shapes",
        "prompt": "a red circle",
        "size": "592x440",
        "num_inference_steps": 12,
        "sampler": "dpmpp_2m",
        "previews": True,
    }
    await expect(page.get_by_role("button", name="Generate")).to_be_disabled()
    edge.tell(id, "progress", step=3, steps=12, previews=preview(0.7))
    await expect(page.get_by_text("Step 3 of 12", exact=True).first).to_be_visible()
    await expect(page.get_by_role("progressbar", name="Denoising")).to_have_js_property("value", 3)
    await expect(page.locator("canvas.drawn")).to_have_js_property("width", 64)
    edge.finish(id)
    result = page.locator("#frame").get_by_role("img", name="a red circle")
    await expect(result).to_have_js_property("naturalWidth", 512)
    await expect(page.locator("#result")).to_contain_text("Seed 1000001")  # drawn by the edge
    async with page.expect_download() as download:
        await page.locator("#result").get_by_role("link", name="Download").click()
    assert (await download.value).suggested_filename == f"{id}-1.png"
    await expect(page.get_by_role("button", name="Generate")).to_be_enabled()


async def test_several_pictures_are_shown_with_their_seeds(open_page: Open) -> None:
    tab = await open_page()
    await tab.page.get_by_label("Pictures", exact=True).fill("3")
    await tab.page.get_by_label("Seed", exact=True).fill("40")
    id = await tab.generate()
    assert tab.edge.posted()["n"] == 3
    await expect(tab.page.locator("#frame canvas")).to_have_count(3)
    tab.edge.finish(id)
    await expect(tab.page.locator("#frame img")).to_have_count(3)
    await expect(tab.page.locator("#result li")).to_contain_text(["seed 40", "seed 41", "seed 42"])


async def test_the_cold_start_is_told_phase_by_phase(open_page: Open) -> None:
    tab = await open_page(reduced_motion="reduce")
    page, edge = tab.page, tab.edge
    id = await tab.generate()
    for phase, seconds in START:
        edge.tell(id, "waking", phase=phase, seconds=seconds, eta=60 - seconds)
    await expect(page.locator("#state")).to_have_text("Waking the GPU")
    await expect(page.locator("#eta")).to_contain_text("awake in about")
    phases = page.get_by_role("list", name="Phases of the cold start").get_by_role("listitem")
    await expect(phases.locator("b")).to_have_text(
        ["Waiting for a machine", "Libraries", "Weights to the GPU", "Under way"]
    )
    assert (await phases.locator("span").all_inner_texts())[:3] == ["4.4 s", "1.7 s", "3.1 s"]
    await expect(page.locator("#cold-bar > *")).to_have_count(5)
    widths = await page.evaluate(
        "[...document.querySelectorAll('#cold-bar > *')].map(({ offsetWidth }) => offsetWidth)"
    )
    assert widths[0] > widths[2] > widths[1] > 0
    assert widths[-1] > sum(widths[:-1])  # most of it is still to come
    edge.tell(id, "progress", step=1, steps=30)
    await expect(phases.locator("b").last).to_have_text("Getting ready")
    edge.finish(id, cold_start=True)
    await expect(page.locator("#state")).to_contain_text("a GPU was woken for it")
    await expect(page.locator("#cold")).to_be_visible()


async def test_a_job_can_be_cancelled(open_page: Open) -> None:
    tab = await open_page()
    id = await tab.generate()
    tab.edge.tell(id, "progress", step=1, steps=30)
    await tab.page.get_by_role("button", name="Cancel").click()
    await expect(tab.page.locator("#state")).to_have_text("Cancelled.")
    assert tab.edge.jobs[id].state == "cancelled"
    await expect(tab.page.get_by_role("button", name="Generate")).to_be_enabled()
    await expect(tab.page.locator("#gallery li").first).to_contain_text("Cancelled")


async def test_a_failure_is_told_in_its_own_words(open_page: Open) -> None:
    tab = await open_page()
    id = await tab.generate()
    tab.edge.fail(id, EngineLost("the engine died while it made these images"))
    await expect(tab.page.locator("#state")).to_have_text("The engine died while it made these images")


@pytest.mark.parametrize(
    ("label", "value", "words"),
    [
        ("Steps", "900", "Got 900; allowed: 1 to 150"),
        ("Guidance scale", "0.5", "Got 0.5; allowed: 1 to 30"),
        ("Pictures", "99", "Got 99; allowed: 1 to 4"),
        ("Prompt", "", "Got ''; allowed: a text that is not empty"),
    ],
)
async def test_an_error_stands_at_the_field_it_names(open_page: Open, label: str, value: str, words: str) -> None:
    tab = await open_page()
    page = tab.page
    await page.get_by_label("Prompt", exact=True).fill("a circle")
    field = page.get_by_label(label, exact=True)
    await field.fill(value)
    await page.get_by_role("button", name="Generate").click()
    await expect(field).to_have_attribute("aria-invalid", "true")
    await expect(field).to_have_accessible_description(words)
    await expect(field).to_be_focused()
    await field.press("1")
    await expect(field).to_have_accessible_description("")


async def test_a_size_of_ones_own_is_sent_and_refused_at_its_field(open_page: Open) -> None:
    tab = await open_page()
    page = tab.page
    await page.get_by_label("Size", exact=True).select_option("other…")
    await page.get_by_label("Width in pixels", exact=True).fill("500")
    await page.get_by_label("Height in pixels", exact=True).fill("512")
    await page.get_by_label("Prompt", exact=True).fill("a circle")
    await page.get_by_role("button", name="Generate").click()
    await expect(page.get_by_label("Width in pixels", exact=True)).to_have_accessible_description(
        "Got '500x512'; allowed: auto, or WIDTHxHEIGHT in multiples of 8 from 64, with at most 1048576 pixels in all"
    )
    assert tab.edge.posted()["size"] == "500x512"


@pytest.mark.parametrize(
    ("problem", "words"),
    [
        (QuotaExceeded("quota: 3 jobs of 3", retry_after=17), "quota: 3 jobs of 3 Try again in 17 s."),
        (StoreUnavailable("the database does not answer", retry_after=2), "Try again in 2 s."),
    ],
)
async def test_what_no_field_is_to_blame_for_is_an_alert(open_page: Open, problem: Any, words: str) -> None:
    tab = await open_page()
    tab.edge.refusals.append(("POST /v1/jobs", problem))
    await tab.page.get_by_label("Prompt", exact=True).fill("a circle")
    await tab.page.get_by_role("button", name="Generate").click()
    await expect(tab.page.get_by_role("alert")).to_contain_text(words)
    await tab.generate()  # the next try takes it away
    await expect(tab.page.get_by_role("alert")).to_be_hidden()


async def test_the_key_comes_from_the_fragment_and_leaves_the_address(open_page: Open, edge: StandIn) -> None:
    edge.key = KEY
    tab = await open_page(f"#key={KEY}")
    assert tab.page.url == f"{edge.url}/"
    id = await tab.generate()
    edge.finish(id)
    await expect(tab.page.locator("#frame img")).to_be_visible()
    assert {asked.headers["authorization"] for asked in edge.asked} == {f"Bearer {KEY}"}
    await tab.page.reload()
    await expect(tab.page.locator("#gallery img")).to_have_count(1)
    assert await tab.page.evaluate("localStorage.length + document.cookie.length") == 0


async def test_without_a_valid_key_the_page_asks_for_one(open_page: Open, edge: StandIn) -> None:
    edge.key = KEY
    tab = await open_page()
    field = tab.page.get_by_label("API key", exact=True)
    await expect(field).to_be_focused()
    await field.fill(KEY)
    await field.press("Enter")
    await expect(field).to_be_hidden()
    await expect(tab.page.get_by_label("Steps", exact=True)).to_have_attribute("placeholder", "30")


async def test_a_stream_that_is_cut_is_resumed_where_it_ended(open_page: Open) -> None:
    tab = await open_page()
    page, edge = tab.page, tab.edge
    id = await tab.generate()
    edge.tell(id, "progress", step=1, steps=30)
    edge.tell(id, "progress", step=2, steps=30)
    await expect(page.locator("#state")).to_have_text("Step 2 of 30")
    events = f"/v1/jobs/{id}/events"
    edge.refusals.append((f"GET {events}", StoreUnavailable("the database does not answer", retry_after=2.0)))
    edge.cut()
    await expect(page.locator("#state")).to_contain_text("Connection lost")
    await expect(page.locator("#state")).to_have_text("Connected again")
    edge.tell(id, "progress", step=3, steps=30)
    await expect(page.locator("#state")).to_have_text("Step 3 of 30")
    edge.cut()
    edge.finish(id)
    await expect(page.locator("#frame img")).to_be_visible()
    tries = [asked.headers.get("last-event-id") for asked in edge.asked if asked.path == events]
    assert tries[:3] == [None, "2", "2"]
    assert sum(asked.method == "POST" for asked in edge.asked) == 1


async def test_a_reload_loses_nothing(open_page: Open) -> None:
    tab = await open_page()
    id = await tab.generate()
    tab.edge.tell(id, "progress", step=4, steps=30)
    await expect(tab.page.locator("#state")).to_have_text("Step 4 of 30")
    await tab.page.reload()
    await expect(tab.page.locator("#state")).to_have_text("Step 4 of 30")
    tab.edge.finish(id)
    await expect(tab.page.locator("#frame img")).to_be_visible()


async def test_a_hostile_prompt_is_text_wherever_it_is_shown(open_page: Open) -> None:
    tab = await open_page()
    page, edge = tab.page, tab.edge
    id = await tab.generate(HOSTILE)
    edge.tell(id, "waking", phase=HOSTILE, seconds=1.0, eta=2.0)
    await expect(page.locator("#cold-phases")).to_contain_text("<img")
    edge.finish(id)
    await expect(page.locator("#frame img")).to_have_attribute("alt", HOSTILE)
    failed = await tab.generate(HOSTILE)
    edge.fail(failed, EngineLost(HOSTILE))
    await expect(page.locator("#state")).to_have_text(HOSTILE)
    await page.locator("#gallery button").first.click()
    await expect(page.get_by_role("dialog").get_by_role("heading", name=HOSTILE)).to_be_visible()
    assert await page.title() == "sdzero"
    assert await page.locator("[onerror], body script").count() == 0


async def test_the_gallery_pages_and_details_can_be_used_again(open_page: Open, edge: StandIn) -> None:
    for number in range(30):
        edge.finish(edge.add({"prompt": f"picture {number}", "num_inference_steps": 20, "seed": 100 + number}).id)
    tab = await open_page()
    page = tab.page
    pictures = page.locator("#gallery li")
    for count in (12, 24, 30):
        await expect(pictures).to_have_count(count)
        if count < 30:
            await page.get_by_role("button", name="More").click()
    await expect(page.get_by_role("button", name="More")).to_be_hidden()
    await expect(pictures.nth(24).get_by_role("button")).to_be_focused()
    await page.get_by_role("button", name="picture 3", exact=True).click()
    dialog = page.get_by_role("dialog", name="picture 3")
    await expect(dialog).to_contain_text("Denoise1.13 s")
    await dialog.get_by_role("button", name="Use these settings").click()
    await expect(dialog).to_be_hidden()
    await expect(page.get_by_label("Prompt", exact=True)).to_have_value("picture 3")
    await expect(page.get_by_label("Steps", exact=True)).to_have_value("20")
    await expect(page.get_by_label("Seed", exact=True)).to_have_value("103")


async def test_a_replay_says_whether_it_came_out_the_same(open_page: Open) -> None:
    tab = await open_page()
    id = await tab.generate()
    tab.edge.finish(id)
    await tab.page.get_by_role("button", name="Replay").click()
    again = await tab.edge.created()
    assert tab.edge.jobs[again].replay_of == id
    tab.edge.finish(again)
    await expect(tab.page.locator("#state")).to_contain_text("the replay came out identical")


async def test_a_model_that_is_not_known_yet_is_learned_with_the_first_picture(open_page: Open, edge: StandIn) -> None:
    edge.capabilities = None
    tab = await open_page()
    id = await tab.generate("a circle")
    assert edge.posted() == {"model": "shapes", "prompt": "a circle"}
    edge.capabilities = CAPABILITIES
    edge.finish(id)
    await expect(tab.page.get_by_label("Sampler", exact=True).get_by_role("option")).to_have_count(4)


@pytest.mark.parametrize("button", ["Copy as curl", "Copy as Python"])
async def test_what_is_copied_runs_and_makes_the_same_picture(
    open_page: Open, edge: StandIn, button: str, tmp_path: Path
) -> None:
    edge.key = KEY
    prompt = """it's "quoted" $HOME `ls` \\ two\nlines ✓"""
    permissions = {"permissions": ["clipboard-read", "clipboard-write"]}
    tab = await open_page(f"#key={KEY}", **permissions)
    await tab.page.get_by_label("Negative prompt").fill("blur")
    edge.finish(await tab.generate(prompt))
    await tab.page.get_by_role("button", name=button).click()
    await expect(tab.page.locator("#announcer")).to_contain_text("copied")
    text = await tab.page.evaluate("navigator.clipboard.readText()")
    assert KEY not in text
    command = ["bash", "-c", text] if button == "Copy as curl" else [sys.executable, "-c", text]
    environment = os.environ | {"SDZERO_API_KEY": KEY}
    run = await asyncio.to_thread(
        subprocess.run, command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert run.returncode == 0, run.stderr
    assert (tmp_path / "picture-1.png").is_file() or '"data":[{' in run.stdout
    (sent,) = [asked for asked in edge.asked if asked.path == "/v1/images/generations"]
    assert sent.headers["authorization"] == f"Bearer {KEY}"
    assert {name: value for name, value in sent.body.items() if name != "response_format"} == {
        "model": "shapes",
        "prompt": prompt,
        "negative_prompt": "blur",
        "n": 1,
        "size": "512x512",
        "seed": 1_000_001,
        "num_inference_steps": 30,
        "guidance_scale": 7.5,
        "sampler": "dpmpp_2m",
    }
