from pathlib import Path

import pytest

from predictor.lab.bench.results import Arrival, ColdStart, Latency, LoadRun, Raw, Result, Workload, ratios
from predictor.lab.bench.snapshot import write_snapshot


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the tiny SD 1.5."""
    folder = tmp_path_factory.mktemp("models") / "tiny-sd15"
    write_snapshot(folder, "tiny-sd15")
    return folder


@pytest.fixture
def result() -> Result:
    """A run in which ours is twice as fast from cold, four times when warm, and eight times under a burst."""
    raw = Raw(workload=Workload(model="sd15", steps=20, guidance_scale=7.5, height=512, width=512))
    for side, cold, warm, finish in (("ours", 5.0, 0.25, 2.0), ("plain", 10.0, 1.0, 16.0)):
        for trial, off in enumerate((-0.5, 0.0, 4.0), start=1):
            raw.cold.append(
                ColdStart(
                    side=side, trial=trial, kernel_start=0.01, port_open=2.0, first_image=cold + off, server_timing=""
                )
            )
            raw.latency.append(Latency(side=side, facet="single", images=1, seconds=warm + off / 20))
        raw.latency += [Latency(side=side, facet="batch", images=n, seconds=warm * n) for n in (1, 2, 4)]
        burst = [Arrival(0.0, 0.001, finish * (n + 1) / 16, 200) for n in range(16)]
        poisson = [Arrival(float(n), n + 0.002, n + warm, 200) for n in range(8)]
        raw.load.append(LoadRun(side=side, schedule="burst of 16", requested_rate=None, arrivals=burst))
        raw.load.append(LoadRun(side=side, schedule="Poisson at 70% of plain", requested_rate=1.0, arrivals=poisson))
    machine = {"gpu": "NVIDIA H100", "cpu_count": 16}
    return Result(
        command="sdzero bench run --model sd15",
        commit="abc",
        machine=machine,
        date="2026-01-02T03:04:05+00:00",
        ratios=ratios(raw),
        raw=raw,
    )
