"""The client against real processes: the plain handler, and small servers that misbehave in one way each."""

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DiffusionPipeline
from PIL import Image

from predictor.lab.bench import processes
from predictor.lab.bench.plain import load
from predictor.lab.bench.results import Workload
from predictor.lab.bench.running import Running, check_pictures, drive, first_image, request, started
from predictor.lab.bench.sides import PLAIN, PROMPT
from tests.lab.bench.fakes import SERVER, program

WORK = Workload(model="tiny-sd15", steps=3, guidance_scale=7.5, height=128, width=128)


@pytest.fixture(scope="module")
def plain(tiny: Path) -> Iterator[Running]:
    with started(PLAIN, tiny, "cpu") as running:
        first_image(running, WORK, 0, seed=0)
        yield running


def test_the_plain_handler_gives_the_pixels_of_diffusers(plain: Running, tiny: Path) -> None:
    pipeline = DiffusionPipeline.from_pretrained(tiny, dtype=torch.float32)
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    expected = pipeline(
        PROMPT, num_inference_steps=3, num_images_per_prompt=2, generator=torch.Generator().manual_seed(5)
    ).images
    answer = _answer(plain, seed=5, images=2)
    assert len(answer) == 2
    for got, want in zip(answer, expected, strict=True):
        assert np.abs(np.asarray(got).astype(int) - np.asarray(want)).max() <= 2


def test_a_compiled_handler_compiles_unet_and_decoder_and_draws_the_same(plain: Running, tiny: Path) -> None:
    pipeline = load(tiny, "cpu", compiled=True)
    assert isinstance(pipeline.unet, torch._dynamo.OptimizedModule)
    assert hasattr(pipeline.vae.decode, "_torchdynamo_orig_callable")
    # The code that would come out takes minutes on a CPU; that the pipeline runs through the wrappers does not.
    with torch.compiler.set_stance("force_eager"):
        generator = torch.Generator().manual_seed(5)
        made = pipeline(PROMPT, num_inference_steps=3, generator=generator).images[0]
    (want,) = _answer(plain, seed=5, images=1)
    assert np.abs(np.asarray(made).astype(int) - np.asarray(want)).max() <= 2


def test_every_request_of_a_schedule_is_sent_and_answered(plain: Running) -> None:
    arrivals = drive(plain, WORK, [0.0, 0.0, 0.0, 0.2], first_seed=0)
    assert [a.intended for a in arrivals] == [0.0, 0.0, 0.0, 0.2]
    assert all(a.status == 200 for a in arrivals)
    assert all(a.intended <= a.sent < a.finished for a in arrivals)
    # The second request does not wait for the first one's answer: that is what open-loop means.
    assert max(a.sent for a in arrivals[:3]) < min(a.finished for a in arrivals)


def test_a_refusal_ends_a_benchmark_with_its_reason(tmp_path: Path) -> None:
    with started(program(SERVER), tmp_path, "cpu") as running:
        with pytest.raises(RuntimeError, match="eager: first request: HTTP 400"):
            first_image(running, msgspec.structs.replace(WORK, steps=4), 1, seed=0)
        assert request(running, WORK, 0, 1) > 0
        with pytest.raises(RuntimeError, match="eager: HTTP 400"):
            request(running, msgspec.structs.replace(WORK, steps=4), 0, 1)


def test_a_server_that_is_not_ready_is_asked_again(tmp_path: Path) -> None:
    with started(program(SERVER), tmp_path, "cpu") as running:
        sample = first_image(running, WORK, 1, seed=0)
    assert sample.server_timing == "imports;dur=12.0"
    assert 0 < sample.port_open < sample.first_image
    assert -0.05 < sample.kernel_start <= sample.port_open
    assert running.process.returncode is not None
    assert [(mark.process, mark.name) for mark in sample.marks][2:] == [
        ("engine", "weights_read"),
        ("server", "imports"),
    ]
    # Marks are counted from the spawn, as all else of the sample.
    assert all(0 < mark.at < sample.first_image for mark in sample.marks)
    assert processes.members(running.process.pid) == []


def test_a_process_that_ends_is_reported_with_its_last_words(tmp_path: Path) -> None:
    side = program("raise SystemExit('weights are broken')")
    with (
        pytest.raises(RuntimeError, match="weights are broken"),
        started(side, tmp_path, "cpu") as running,
    ):
        first_image(running, WORK, 1, seed=0)


def test_a_lost_connection_under_load_is_status_0(tmp_path: Path) -> None:
    with started(program("import time; time.sleep(600)"), tmp_path, "cpu") as running:
        assert [a.status for a in drive(running, WORK, [0.0, 0.0], first_seed=0)] == [0, 0]


def test_wrong_pictures_are_refused() -> None:
    def file(picture: Image.Image) -> bytes:
        buffer = BytesIO()
        picture.save(buffer, "PNG")
        return buffer.getvalue()

    black = file(Image.new("RGB", (128, 128)))
    small = file(Image.linear_gradient("L").resize((64, 64)))
    with pytest.raises(RuntimeError, match="empty picture"):
        check_pictures([black], WORK, 1)
    with pytest.raises(RuntimeError, match="64, 64"):
        check_pictures([small], WORK, 1)
    with pytest.raises(RuntimeError, match="got 0 pictures"):
        check_pictures([], WORK, 1)


def _answer(running: Running, seed: int, images: int) -> list[Image.Image]:
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=60)
    connection.request("POST", running.side.path, running.side.body(WORK, seed, images))
    body = connection.getresponse().read()
    connection.close()
    return [Image.open(BytesIO(file)) for file in running.side.pictures(body)]
