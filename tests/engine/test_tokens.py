"""transformers' own tokenizer is the truth."""

import json
import warnings
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import CLIPTokenizer

from predictor.engine.folder import FolderError
from predictor.engine.tokens import PromptTooLong, Tokenizer
from predictor.lab.bench.snapshot import write_snapshot

TEXTS = [
    "",
    "a small red circle on a blue background",
    "A  Photo\tof\na CAT",
    "don't, we'll, they're: it's",
    "naïve café ÅNGSTRÖM 東京 Ελλάδα",
    "emoji 🎨🖌️ and 1234567890",
    "!!! <|endoftext|> <|startoftext|> </w>",
    "e\u0301 is é; \x00 is nothing",
]


@pytest.fixture(scope="module", params=["tiny-sd15", "tiny-sdxl"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = tmp_path_factory.mktemp("model")
    write_snapshot(model, request.param)
    return model / ("tokenizer_2" if request.param == "tiny-sdxl" else "tokenizer")


@pytest.fixture(scope="module")
def pair(folder: Path) -> tuple[Tokenizer, CLIPTokenizer]:
    return Tokenizer.load(folder), CLIPTokenizer.from_pretrained(folder)


@given(st.one_of(st.sampled_from(TEXTS), st.text(max_size=40)))
def test_ids_are_those_of_transformers(pair: tuple[Tokenizer, CLIPTokenizer], text: str) -> None:
    ours, theirs = pair
    expected = theirs(text, padding="max_length", max_length=ours.max_length, truncation=True).input_ids
    assert ours.encode(text, truncate=True).ids.tolist() == expected


def test_padding_is_the_folders_own(folder: Path) -> None:
    last = Tokenizer.load(folder).encode("red").ids[-1]
    assert (last == 0) == (folder.name == "tokenizer_2"), "SDXL's second tokenizer pads with '!'"


def test_a_long_text_is_counted_whole_and_refused_or_cut(pair: tuple[Tokenizer, CLIPTokenizer]) -> None:
    text = "a, " * 20_000
    with pytest.raises(PromptTooLong, match="40000 tokens; at most 75 fit") as caught:
        pair[0].encode(text)
    assert caught.value.used == 40_000
    assert pair[0].encode(text, truncate=True).used == 40_000


def test_tokenizer_json_alone_serves_as_well(folder: Path, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        CLIPTokenizer.from_pretrained(folder).save_pretrained(tmp_path)
    for name in ("vocab.json", "merges.txt"):
        (tmp_path / name).unlink(missing_ok=True)
    for text in TEXTS:
        assert Tokenizer.load(tmp_path).encode(text).ids.tolist() == Tokenizer.load(folder).encode(text).ids.tolist()


def test_a_broken_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FolderError, match=r"tokenizer_config\.json: No such file"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("{}")
    with pytest.raises(FolderError, match=r"vocab\.json, merges\.txt: not a CLIP vocabulary"):
        Tokenizer.load(tmp_path)
    (tmp_path / "vocab.json").write_text(json.dumps({"a": 0}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    with pytest.raises(FolderError, match=r"not a CLIP vocabulary|lacks"):
        Tokenizer.load(tmp_path)
