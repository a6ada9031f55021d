"""0 → 1 → 0, again and again, beside the platform's floor and beside a naive predictor."""

import base64
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import report as reports
from tests.e2e.asking import OPENAI, SQUARE, Answer, ask, connect, decode, order, picture_of
from tests.e2e.cluster import Way, apply, eventually, get, read_manifest
from tests.e2e.cycles import ColdStart, Side, clock_room, rounds, spread
from tests.e2e.release import CONTAINER, MODEL, WINDOW, Release, is_up_to_date
from tests.e2e.report import Report
from tests.e2e.settings import Settings
from tests.e2e.sightings import Sightings

STEPS = 10


@pytest.fixture(scope="module")
def trivial(release: Release, settings: Settings) -> Side:
    """The floor: a Knative service whose process starts in a few milliseconds."""
    program = read_manifest("trivial.py")
    manifest = json.loads(read_manifest("trivial.json", window=str(WINDOW), image=settings.edge_image, program=""))
    manifest["spec"]["template"]["spec"]["containers"][0]["args"] = [program]
    apply(release.namespace, manifest)
    eventually(lambda: "url" in get("ksvc", "trivial", "-n", release.namespace).get("status", {}), 120, "trivial")
    client = release.clients.enter_context(connect(Way(settings, release.namespace, "trivial")))
    return Side(
        "trivial",
        release.namespace,
        "trivial",
        "user-container",
        lambda _: ask(client, "/", {}),
        assert_ok,
    )


def assert_ok(answer: Answer) -> None:
    assert (answer.status, answer.body) == (200, b"ok")


@pytest.fixture(scope="module")
def naive(release: Release, settings: Settings) -> Side:
    """Plain diffusers in a kserve handler, with the same model."""
    program = {"naive.py": read_manifest("naive.py")}
    config_map = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "naive"}, "data": program}
    fields = {"window": str(WINDOW), "image": settings.naive_image}
    apply(release.namespace, config_map, json.loads(read_manifest("naive.json", **fields)))
    eventually(lambda: is_up_to_date(release.namespace, "naive"), 300, "the naive predictor ready")
    client = release.clients.enter_context(connect(Way(settings, release.namespace, "naive-predictor")))
    prompt = {"name": "prompt", "shape": [1], "datatype": "BYTES", "data": [SQUARE.prompt]}

    def draw(seed: int) -> Answer:
        order = {"height": 128, "width": 128, "steps": STEPS, "guidance_scale": 7.5, "seed": seed}
        return ask(client, f"/v2/models/{MODEL}/infer", {"inputs": [prompt], "parameters": order})

    def right(answer: Answer) -> None:
        (output,) = answer.json["outputs"]
        (png,) = output["data"]
        SQUARE.assert_in(decode(base64.b64decode(png)))

    return Side("naive", release.namespace, "naive-predictor", CONTAINER, draw, right)


@pytest.fixture(scope="module")
def ours(release: Release) -> Side:
    """The product, edge included, as its clients see it."""
    client = release.client()

    def right(answer: Answer) -> None:
        SQUARE.assert_in(picture_of(answer))
        assert answer.headers.get("x-cache") != "hit"

    def draw(seed: int) -> Answer:
        return ask(client, OPENAI, order(SQUARE, seed, num_inference_steps=STEPS))

    return Side(MODEL, release.namespace, release.service("predictor"), CONTAINER, draw, right)


def test_from_zero_to_a_right_picture_and_back_to_zero(
    trivial: Side, naive: Side, ours: Side, settings: Settings, report: Report, facts: dict[str, object]
) -> None:
    sides = [trivial, naive, ours]
    found: list[ColdStart] = []
    with Sightings(ours.namespace) as seen:
        for start in rounds(sides, seen, settings.cycles):
            found.append(start)
            if len(found) % len(sides) == 0:  # a run that is cut off leaves what it had
                content = summary(found, naive, ours, trivial) | {"clock_room": clock_room(seen)}
                reports.write(Path(settings.results) / "cold-starts.json", content, report)
        seen.assert_complete()
    for name, total in content["total"].items():
        share = content["pod_share"][name]
        facts[f"{name}, {settings.cycles} cold starts"] = (
            f"{total['median']:.2f} s ({total['least']:.2f} to {total['most']:.2f}), in its pod {share['median']:.2f} s"
        )
    facts.update(content["figures"])
    assert [start for start in found if start.wrong] == []
    assert content["figures"]["pod_share_of_cold_start"] >= 3
    assert content["figures"]["added_to_a_trivial_cold_start"] < 2.5


def summary(found: Sequence[ColdStart], naive: Side, ours: Side, trivial: Side) -> dict[str, Any]:
    """Medians and spread of each side, in seconds, and how the sides compare."""
    of = {side.name: [start for start in found if start.side == side.name] for side in (trivial, naive, ours)}
    total = {name: spread([start.total for start in starts]) for name, starts in of.items()}
    share = {name: spread([start.pod_share for start in starts]) for name, starts in of.items()}
    figures = {
        "pod_share_of_cold_start": round(share[naive.name]["median"] / share[ours.name]["median"], 2),
        "added_to_a_trivial_cold_start": round(total[ours.name]["median"] - total[trivial.name]["median"], 3),
    }
    return {"figures": figures, "total": total, "pod_share": share, "starts": [asdict(start) for start in found]}
