"""The demo model from a bundle: what it draws, what it imports, what it leaves behind, and what it refuses."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from predictor.engine.baked.bundle import BundleError
from predictor.engine.baked.prelude import Prelude
from predictor.engine.load import load
from predictor.lab.comparison import Report, compare
from predictor.settings import EngineSettings

# 1000 requests of one step, in a process that nothing else runs in; prints what it grew by.
SOAK = """
import math, sys
from pathlib import Path
from predictor.settings import EngineSettings
from predictor.engine.baked.prelude import Prelude
settings = EngineSettings(bundle=sys.argv[1], threads=1)
prelude = Prelude(settings).begin()
from predictor.core.messages import Generate
from predictor.core.request import GenerationRequest
from predictor.engine.load import load
worker, capabilities = load(settings, lambda *_: None, prelude)

def request(number):
    return GenerationRequest(
        prompt=f"a red circle {number % 80}", negative_prompt="", seed=number, steps=2 if number % 50 == 0 else 1,
        guidance_scale=4.0, height=capabilities.default_height, width=capabilities.default_width,
        sampler=capabilities.samplers[number % 4], num_images=1, truncate_prompt=False,
    )

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

for number in range(1000):
    worker.add(Generate(str(number), request(number), deadline=math.inf))
    while worker.busy:
        worker.advance()
    if number == 200:
        before = resident()
print(resident() - before, len(list(Path("/proc/self/task").iterdir())), "torch" in sys.modules)
"""


def no_mark(name: str, since: str = "", at: float | None = None) -> None:
    """Nobody looks at the timeline."""


@pytest.fixture(scope="module")
def report(demo_bundle: Path, demo_model: Path) -> Report:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        return compare(demo_bundle, demo_model, steps=14, threads=1)


def test_every_sampler_draws_what_the_eager_runtime_draws(report: Report) -> None:
    assert report.finite
    assert {one.sampler for one in report.drawn} == {"ddim", "euler", "euler_a", "dpmpp_2m", "dpmpp_2m_karras", "lcm"}
    for one in report.drawn:
        assert one.levels <= 3, one
        # Strong guidance multiplies rounding errors step by step, between two batches of one runtime as between two.
        assert one.latents < 1e-4 or one.guidance_scale > 4, one
    assert report.worst_psnr >= 40


def test_the_batches_were_mixed_and_of_many_sizes(report: Report) -> None:
    assert {1, 2, 16} & set(report.batches)
    assert len(set(report.batches)) >= 5
    assert max(report.batches) == 16


def test_a_thousand_requests_leave_nothing_behind(demo_bundle: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", SOAK, str(demo_bundle)], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    grown, threads, torch = ended.stdout.split()
    assert int(grown) < 8 * 2**20
    assert int(threads) < 16
    assert torch == "False"


@pytest.fixture
def damaged(demo_bundle: Path, tmp_path: Path) -> Path:
    """A copy of the bundle to hurt."""
    return Path(shutil.copytree(demo_bundle, tmp_path / "damaged"))


def refusal(settings: EngineSettings) -> str:
    with pytest.raises(BundleError) as refused:
        load(settings, no_mark, Prelude(settings).begin())
    return str(refused.value)


def test_a_flipped_bit_in_the_weights_is_refused(damaged: Path) -> None:
    weights = damaged / "weights.bin"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    said = refusal(EngineSettings(bundle=str(damaged)))
    assert "weights.bin" in said
    assert "checksum" in said


def test_a_flipped_bit_in_a_library_is_refused_before_it_is_opened(damaged: Path) -> None:
    library = next((damaged / "packages").rglob("*.so"))
    content = bytearray(library.read_bytes())
    content[len(content) // 2] ^= 1
    library.write_bytes(content)
    assert library.name in refusal(EngineSettings(bundle=str(damaged)))


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"device": "cuda"}, "--device is cuda, and it was baked for cpu"),
        ({"dtype": "float16"}, "--dtype is float16, and it was baked for float32"),
    ],
)
def test_settings_that_contradict_the_bundle_are_refused(demo_bundle: Path, asked: dict[str, str], words: str) -> None:
    assert words in refusal(EngineSettings(bundle=str(demo_bundle), **asked))  # type: ignore[arg-type]


def test_an_unfit_bundle_is_served_eagerly_where_that_is_allowed(
    damaged: Path, demo_model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    manifest = json.loads((damaged / "manifest.json").read_text())
    manifest["format"] = 99
    (damaged / "manifest.json").write_text(json.dumps(manifest))
    settings = EngineSettings(bundle=str(damaged), model=str(demo_model), unfit_bundle="eager", device="cpu", threads=1)
    _, capabilities = load(settings, no_mark, Prelude(settings).begin())
    assert capabilities.runtime == "eager"
    assert "manifest.json" in caplog.text
    assert f"running {demo_model} without it" in caplog.text
