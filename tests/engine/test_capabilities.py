import json
from pathlib import Path

import msgspec
import pytest

from predictor.core.clip_tokens import counters
from predictor.core.request import Capabilities
from predictor.engine.capabilities import of_folder
from predictor.engine.folder import ModelFolder
from predictor.engine.tokens import Tokenizer
from predictor.lab.bench.vocabulary import write_tokenizer
from predictor.settings import EngineSettings

CLIP = 49408  # ids
CONFIG_MAP = 2**20  # bytes


@pytest.fixture
def clip(tmp_path: Path) -> Tokenizer:
    write_tokenizer(tmp_path / "clip", CLIP, "<|endoftext|>")
    return Tokenizer.load(tmp_path / "clip")


@pytest.fixture(autouse=True)
def folders(tmp_path: Path) -> None:
    for name in ("clip", "other"):
        (tmp_path / name).mkdir()


def of(demo_model: Path, *tokenizers: Tokenizer) -> Capabilities:
    settings = EngineSettings(model=str(demo_model))
    return of_folder(ModelFolder.open(demo_model), settings, tokenizers, "cpu", "float32")


def test_all_tokenizers_are_told_and_the_merges_that_they_share_are_told_once(demo_model, clip, tmp_path):
    write_tokenizer(tmp_path / "other", CLIP, "!")
    found = of(demo_model, clip, Tokenizer.load(tmp_path / "other"))
    first, second = found.tokenizers
    assert (first.limit, second.limit, second.merges) == (75, 75, None)
    assert [counter.count("!!!!") for counter in counters(found.tokenizers)] == [(3, True), (4, True)]
    sent = msgspec.json.encode(found)
    assert len(sent) < CONFIG_MAP
    assert msgspec.json.decode(sent, type=Capabilities) == found


def test_where_one_tokenizer_cannot_be_counted_without_its_library_none_is_told(demo_model, clip, tmp_path):
    write_tokenizer(tmp_path / "other", CLIP, "!")
    alone = {"content": "<cat>", "single_word": True, "special": False}
    config = {"model_max_length": 77, "added_tokens_decoder": {str(CLIP): alone}}
    (tmp_path / "other" / "tokenizer_config.json").write_text(json.dumps(config))
    assert of(demo_model, clip, Tokenizer.load(tmp_path / "other")).tokenizers == ()
    write_tokenizer(tmp_path / "other", 1000, "!")  # and two sets of merges would be too large
    assert of(demo_model, clip, Tokenizer.load(tmp_path / "other")).tokenizers == ()
    assert len(of(demo_model, clip).tokenizers) == 1
