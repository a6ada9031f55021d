"""The page that people read: whole in one file, and true to the numbers."""

import re

import pytest
from playwright.sync_api import Page, sync_playwright

from loadtest import report, results
from loadtest.job import Started, TargetSpec
from loadtest.run import Run
from loadtest.scenarios import SCENARIOS
from tests.parts.chromium import chromium
from tests.parts.part import Missing

SLEEPY = {
    "service": 0.05, "idle": 0.5, "untold": 0.2,
    "phases": [["server-interpreter", 0.1], ["server-imports", 0.1], ["server-assembled", 0.1],
               ["server-engine_ready", 0.1], ["server-first_request", 0.1]],
}  # fmt: skip


@pytest.fixture
def page() -> Page:
    try:
        path = chromium()
    except Missing as missing:
        pytest.skip(str(missing))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser.new_page(viewport={"width": 1100, "height": 900})
        browser.close()


def test_a_report_of_cold_starts_stands_alone(golden, loadtest, page):
    server = golden(**SLEEPY)
    ran = loadtest("burst-from-zero", "--host", server.url, "--set", "cycles=2", "--set", "idle=0.7",
                   "--set", "arrivals.size=3", "--require", "cold.p95<0.1s", status=1)  # fmt: skip
    errors: list[str] = []
    page.on("request", lambda request: errors.append(request.url) if not request.url.startswith("data:") else None)
    page.on("console", lambda message: errors.append(message.text))
    url = (ran.out / "report.html").as_uri()
    page.goto(url)
    assert errors == [url]  # nothing else is fetched, nothing is complained about
    images = page.locator("img")
    assert images.count() >= 4
    for number in range(images.count()):
        image = images.nth(number)
        assert image.get_attribute("alt")
        assert image.evaluate("image => image.complete && image.naturalWidth > 100")
    text = page.locator("main").inner_text()
    assert text.startswith("burst-from-zero — not passed")
    p95 = ran.figure("cold.p95")
    assert f"{p95:.3f}" in text
    for words in ("unexplained", "process", "first_request", "assumed after 0.7 s without a request", "✗ not met"):
        assert words in text
    # On paper nothing is wider than the page.
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 760, "height": 1000})
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


def test_a_report_names_no_host_no_path_and_no_key(golden, loadtest, monkeypatch):
    monkeypatch.setenv("SDZERO_API_KEY", "sk-sdz-secret")
    server = golden()
    ran = loadtest("warm", "--host", server.url, "--header", "Host: inner.example.com", "--set", "arrivals.rate=30",
                   "--set", "arrivals.seconds=2", "--set", "warm_up=0")  # fmt: skip
    for name in ("report.html", "summary.json", "samples.csv"):
        text = (ran.out / name).read_text()
        for secret in ("sk-sdz-secret", "127.0.0.1", "inner.example.com", str(ran.out.parent)):
            assert secret not in text, (name, secret)
    assert re.search(r"warm +\d+ +p50 0\.\d{3} s \[", ran.printed)


def test_a_generator_that_was_late_is_the_first_thing_said(sample):
    samples = [sample(n, intended=n / 10, sent=n / 10 + 0.05, latency=0.2) for n in range(60)]
    run = Run(
        scenario=SCENARIOS["warm"], seed=1, started=Started(at=0.0, epoch=0.0), attempts=samples, starts=[], held=None,
        zeros={}, missing=[],
    )  # fmt: skip
    targets = {"a": TargetSpec(url="http://x", dialect="openai", model="shapes")}
    found = results.result(run, name="warm", targets=targets, requirements=[], price=None, command="", commit="")
    assert found.warnings[0].startswith("The generator itself began requests late, p99 50 ms")
    text = report.page(found, run)
    assert text.index("class=warning") < text.index("<section>")
