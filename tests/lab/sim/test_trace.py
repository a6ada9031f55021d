import gzip
from pathlib import Path

import numpy as np
import pytest

from predictor.lab.sim.trace import generate, read

GENTD26 = """gmt_create,predict_type,num_images_per_prompt,num_inference_steps,checkpoint_model_version_id
2024-11-15 16:57:50,TXT_2_IMG,1.0,30.0,M0000
2024-11-15 16:58:00,TXT_2_IMG,8.0,40.0,M0001
2024-11-15 16:58:00,IMG_2_IMG,,,M0000
"""


def test_gentd26(tmp_path: Path) -> None:
    path = tmp_path / "lora_request_trace.csv.gz"
    path.write_bytes(gzip.compress(GENTD26.encode()))
    trace = read(path)
    assert trace.name == "lora_request_trace"
    assert trace.at.tolist() == [0.0, 10.0, 10.0]
    assert (trace.images.tolist(), trace.steps.tolist()) == ([1, 8, 1], [30, 40, 30])
    assert (trace.models, trace.model.tolist()) == (("M0000", "M0001"), [0, 1, 0])
    assert trace.identities() is None
    assert trace.merged().models == ("all",)


def test_own_columns_with_identities_in_any_order(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("at,images,steps,identity\n5,1,20,cat\n1.5,2,30,\n2,1,20,cat\n3,1,20,\n")
    trace = read(path)
    assert trace.at.tolist() == [1.5, 2.0, 3.0, 5.0]
    identities = trace.identities()
    assert identities is not None
    assert identities[1] == identities[3]
    assert len(set(identities)) == 3


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("at,images\n1,1\n", "no column steps; there are at, images"),
        ("at,images,steps\n1,1,30\n2,none,30\n", "line 3: images: got 'none'"),
        ("at,images,steps\n1,1.5,30\n", "images: got '1.5'"),
        ("at,images,steps\n-1,1,30\n", "below 0"),
        ("at,images,steps\n", "no requests"),
    ],
)
def test_a_wrong_file_is_refused_by_line_and_column(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "wrong.csv"
    path.write_text(content)
    with pytest.raises(ValueError, match=words):
        read(path)


def test_generated_traces_are_fixed_by_their_seed() -> None:
    words = "diurnal:rate=0.2,hours=48,peak=1.8,images=2"
    one, again, other = generate(words, 1), generate(words, 1), generate(words, 2)
    assert np.array_equal(one.at, again.at)
    assert not np.array_equal(one.at[:5], other.at[:5])
    assert set(one.images.tolist()) == {2}


def test_a_day_has_its_rate_and_its_peak() -> None:
    trace = generate("diurnal:rate=0.5,hours=240,peak=2", 0)
    assert len(trace.at) / 864_000 == pytest.approx(0.5, rel=0.02)
    hours = np.bincount((trace.at % 86_400 // 3600).astype(int), minlength=24)
    assert hours.argmax() in (10, 11, 12, 13)  # noon
    assert hours.max() / hours.mean() == pytest.approx(2, rel=0.1)


def test_bursts_come_all_at_once() -> None:
    assert generate("burst:size=3,every=600,hours=0.5", 0).at.tolist() == [0.0] * 3 + [600.0] * 3 + [1200.0] * 3


@pytest.mark.parametrize(
    "words", ["weekly:rate=1", "poisson:speed=1", "poisson:rate=fast", "poisson:rate=0", "diurnal:peak=3"]
)
def test_words_that_mean_nothing_are_refused(words: str) -> None:
    with pytest.raises(ValueError, match="allowed"):
        generate(words, 0)
