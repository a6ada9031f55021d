import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import jsonschema
import msgspec
import pytest
import yaml

from predictor.lab.sim.configurations import CONFIGURATIONS, changed, told
from predictor.lab.sim.cost import read_prices
from predictor.lab.sim.kpa import Autoscaling
from predictor.lab.sim.plan import Objective, Trial, pareto, search, values
from predictor.lab.sim.results import Summary, summarise
from predictor.lab.sim.trace import Trace
from predictor.lab.sim.world import World

CHART = Path(__file__).parents[3] / "charts" / "sdzero"


@pytest.fixture
def summary(trace: Callable[..., Trace]) -> Callable[..., Summary]:
    """Makes a summary with these GPU-seconds per image, p95, and lost requests."""
    made, configuration = trace(10.0, 20.0), CONFIGURATIONS["sdzero"]()
    base = summarise(made, configuration, World(made, configuration, 0).run(), read_prices()["h100-rented"])

    def make(held: float, p95: float, lost: int = 0) -> Summary:
        latency = msgspec.structs.replace(base.latency, p95=p95)
        outcomes = {**base.outcomes, "timed_out": lost}
        return msgspec.structs.replace(base, gpu_seconds_per_image=held, latency=latency, outcomes=outcomes)

    return make


def test_a_summary_counts_what_was_delivered(trace: Callable[..., Trace]) -> None:
    made, configuration = trace(10.0, 20.0, 21.0, images=4), CONFIGURATIONS["sdzero"]()
    run = World(made, configuration, 0).run()
    found = summarise(made, configuration, run, read_prices()["h100-rented"])
    assert (found.requests, found.images, found.pods) == (3, 12, 1)
    assert found.gpu_seconds_per_image == pytest.approx(sum(run.pod_lives) / 12)
    assert found.latency.p50 == sorted(run.latencies)[1]
    assert found.latency.p95 == max(run.latencies)
    assert found.usd_per_1000_images == pytest.approx(1000 * found.usd / 12)
    assert found.settings["window"] == 30


@pytest.mark.parametrize(
    ("text", "percentile", "seconds"), [("p95=4s", "p95", 4), ("p99=800ms", "p99", 0.8), ("mean=1.5m", "mean", 90)]
)
def test_objectives(text: str, percentile: str, seconds: float) -> None:
    assert Objective.parse(text) == Objective(percentile, pytest.approx(seconds))


@pytest.mark.parametrize("text", ["p95", "p97=4s", "p95=0s", "p95=4h", "p95=-1s"])
def test_what_is_no_objective_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="p95=4s"):
        Objective.parse(text)


def test_the_search_takes_the_cheapest_that_keeps_the_objective(summary: Callable[..., Summary]) -> None:
    def simulate(autoscaling: Autoscaling) -> Summary:
        return summary(held=autoscaling.window / 10 + autoscaling.max_scale, p95=100 / autoscaling.window)

    objective = Objective("p95", 4.0)
    best, trials = search(
        Autoscaling(max_scale=2),
        {"window": (6, 15, 30, 60), "max_scale": (1, 2), "min_scale": (0, 2)},
        objective,
        simulate,
    )
    assert (best.autoscaling.window, best.autoscaling.max_scale) == (30, 1)
    assert len({trial.autoscaling for trial in trials}) == len(trials)
    assert all(trial.autoscaling.max_scale in (0, 2) for trial in trials if trial.autoscaling.min_scale)


def test_a_lost_request_disqualifies(summary: Callable[..., Summary]) -> None:
    objective = Objective("p95", 4.0)
    good, bad, slow = (
        Trial(Autoscaling(window=window), made)
        for window, made in ((10, summary(5, 3)), (11, summary(1, 1, lost=1)), (12, summary(2, 5)))
    )
    assert objective.cost(good.summary) < objective.cost(bad.summary)
    assert pareto([good, bad, slow], objective) == [slow, good]


def test_the_front_has_only_what_nothing_beats(summary: Callable[..., Summary]) -> None:
    trials = [
        Trial(Autoscaling(window=10 + n), summary(held, p95))
        for n, (held, p95) in enumerate([(1, 9), (2, 9), (3, 4), (4, 5)])
    ]
    assert pareto(trials, Objective("p95", 4.0)) == [trials[0], trials[2]]


def test_values_are_what_the_chart_takes() -> None:
    text = values(Autoscaling(container_concurrency=16, window=30, max_scale=4, scale_to_zero_pod_retention_period=120))
    found = yaml.safe_load(text)
    assert found["predictor"] == {
        "timeoutSeconds": 300,
        "scaling": {
            "minReplicas": 0,
            "maxReplicas": 4,
            "containerConcurrency": 16,
            "windowSeconds": 30,
            "scaleDownDelaySeconds": 0,
            "retentionSeconds": 120,
        },
    }
    schema = json.loads((Path(__file__).parents[3] / "charts" / "sdzero" / "values.schema.json").read_text())
    jsonschema.validate(
        found["predictor"], {**schema["definitions"]["predictor"], "definitions": schema["definitions"]}
    )


def test_a_setting_is_read_by_name() -> None:
    spec = changed(changed(Autoscaling(), "scale-down-delay=30"), "enable_scale_to_zero=false")
    assert spec == replace(Autoscaling(), scale_down_delay=30.0, enable_scale_to_zero=False)
    assert told(spec) == {"scale_down_delay": 30.0, "enable_scale_to_zero": False}
    assert changed(Autoscaling(), "aggregation=weighted-exponential").aggregation == "weighted-exponential"


@pytest.mark.parametrize(
    "text", ["windows=6", "window=short", "window=6.5", "enable_scale_to_zero=no", "aggregation=mean", "window=5"]
)
def test_a_wrong_setting_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="allowed"):
        changed(Autoscaling(), text)
