from pathlib import Path

import msgspec
import pytest

from predictor.lab.bench.figures import ratios
from predictor.lab.bench.results import Arrival, ColdStart, Latency, LoadRun, Raw, Result, Workload
from predictor.lab.bench.snapshot import write_snapshot


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the tiny SD 1.5."""
    folder = tmp_path_factory.mktemp("models") / "tiny-sd15"
    write_snapshot(folder, "tiny-sd15")
    return folder


@pytest.fixture
def result() -> Result:
    """A run of all sides: seconds of cold start, warm image and burst of 16 stand in the first lines."""
    sides = (
        ("plain", 10.0, 1.0, 16.0),
        ("compile", 90.0, 0.5, 8.0),
        ("eager", 5.0, 0.25, 2.0),
        ("lean", 2.0, 0.2, 1.0),
    )
    raw = Raw(workload=Workload(model="sd15", steps=20, guidance_scale=7.5, height=512, width=512))
    for side, cold, warm, finish in sides:
        for trial, off in enumerate((-0.5, 0.0, 4.0), start=1):
            start = ColdStart(
                side=side, trial=trial, kernel_start=0.01, port_open=1.0, first_image=cold + off, server_timing=""
            )
            raw.cold.append(start)
            if side in ("plain", "lean"):
                late = {"first_image": 1.5 * cold + (5.0 if side == "plain" else 1.0) + off}
                kept = {"page_cache": "dropped", "evicted_bytes": 5_000_000_000, "resident_share": 0.02}
                raw.cold.append(msgspec.structs.replace(start, **late, **kept))
            raw.latency.append(Latency(side=side, facet="single", images=1, seconds=warm + off / 20))
        raw.latency += [Latency(side=side, facet="batch", images=n, seconds=warm * n) for n in (1, 2, 4)]
        for count in (1, 16):
            burst = [Arrival(0.0, 0.001, finish * (n + 1) / 16, 200) for n in range(count)]
            raw.load.append(LoadRun(side=side, schedule=f"burst of {count}", requested_rate=None, arrivals=burst))
        poisson = [Arrival(float(n), n + 0.002, n + warm, 200) for n in range(8)]
        raw.load.append(LoadRun(side=side, schedule="Poisson at 70% of plain", requested_rate=1.0, arrivals=poisson))
    result = Result(
        command="sdzero bench run --model sd15",
        commit="abc",
        machine={"gpu": "NVIDIA H100", "cpu_count": 16},
        date="2026-01-02T03:04:05+00:00",
        ratios={},
        raw=raw,
    )
    result.ratios = ratios(result)
    return result
