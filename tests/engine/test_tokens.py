"""transformers' own tokenizer is the truth."""

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import CLIPTokenizer

from predictor.engine.folder import FolderError
from predictor.engine.tokens import PromptTooLong, Tokenizer
from predictor.lab.bench.vocabulary import write_tokenizer

SIZE = 2048  # tokens in the vocabulary: bytes, some merges, and the two special tokens at its end
START, END = "<|startoftext|>", "<|endoftext|>"
TEXTS = [
    "",
    "a small red circle on a blue background",
    "A  Photo\tof\na CAT\u3000\u00a0",
    "don't, we'll, they're: it's I'VE 'S",
    "naïve café ÅNGSTRÖM İstanbul ẞ ﬁ 東京 Ελλάδα",
    "emoji 🎨🖌️👩‍👩‍👧 and 1234567890 ½²٣",
    "wow! !wow a!b!!c word_word-word—word…",
    "<|endoftext|> red<|startoftext|>blue </w> <|endoftext|",
    "<|ENDOFTEXT|> red<|StartOfText|>blue",
    "e\u0301 is é; \x00 is nothing\x00 \u200b\ufeff\x85",
    "a photo of <cat-toy> and a <CAT-TOY>",
    "a" * 500,
]
PIECES = [START, END, "<|ENDOFTEXT|>", " ", "\n", "\x00", "e\u0301", "'s", *"!É'7東🎨|><", "<cat-toy>"]


def flags(content: str, normalized: bool, **more: Any) -> dict[str, Any]:
    """A token as transformers writes it."""
    return {
        "content": content,
        "lstrip": False,
        "rstrip": False,
        "single_word": False,
        "normalized": normalized,
        **more,
    }


def decoder(*tokens: tuple[int, str, bool]) -> dict[str, Any]:
    return {str(id): flags(content, normalized, special=True) for id, content, normalized in tokens}


ENDS = (SIZE - 2, START, True), (SIZE - 1, END, False)
OLD = {"bos_token": flags(START, True), "eos_token": flags(END, True), "unk_token": flags(END, True)}
NEW = {"bos_token": START, "eos_token": END, "unk_token": END}
# How the published folders write their special tokens: tokenizer_config.json, special_tokens_map.json.
FORMATS: dict[str, tuple[dict[str, Any], dict[str, Any] | None]] = {
    "stable-diffusion-v1-5": ({}, {**OLD, "pad_token": END}),
    "stable-diffusion-2-1": ({}, {**OLD, "pad_token": "!"}),
    "sdxl tokenizer": ({**NEW, "pad_token": END, "added_tokens_decoder": decoder(*ENDS)}, {**OLD, "pad_token": END}),
    "two files that contradict": (
        {**NEW, "pad_token": END, "added_tokens_decoder": decoder(*ENDS)},
        {**OLD, "pad_token": "!"},
    ),
    "textual inversion": (
        {
            **NEW,
            "pad_token": END,
            "added_tokens_decoder": {**decoder(*ENDS), str(SIZE): {"content": "<cat-toy>", "special": False}},
        },
        None,
    ),
    "sdxl tokenizer_2": (
        {**NEW, "pad_token": "!", "added_tokens_decoder": decoder((0, "!", False), *ENDS)},
        {**OLD, "pad_token": "!"},
    ),
    "text only": ({**NEW, "pad_token": "!"}, None),
    "nothing said": ({}, None),
}
PADDING = {"stable-diffusion-2-1": 0, "sdxl tokenizer_2": 0, "text only": 0}


def write_folder(folder: Path, format: str) -> None:
    config, special = FORMATS[format]
    write_tokenizer(folder, SIZE, END)
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 77, **config}))
    (folder / "special_tokens_map.json").unlink()
    if special is not None:
        (folder / "special_tokens_map.json").write_text(json.dumps(special))


def save_as_transformers(folder: Path, target: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        CLIPTokenizer.from_pretrained(folder).save_pretrained(target)


@pytest.fixture(scope="module", params=FORMATS)
def format(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module", params=["vocab.json", "tokenizer.json", "both"])
def folder(request: pytest.FixtureRequest, format: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    written, saved = tmp_path_factory.mktemp("written"), tmp_path_factory.mktemp("saved")
    write_folder(written, format)
    if request.param == "vocab.json":
        return written
    save_as_transformers(written, saved)
    assert not (saved / "vocab.json").exists()
    if request.param == "tokenizer.json":
        return saved
    shutil.copy(saved / "tokenizer.json", written)
    return written


@pytest.fixture(scope="module")
def pair(folder: Path) -> tuple[Tokenizer, CLIPTokenizer]:
    return Tokenizer.load(folder), CLIPTokenizer.from_pretrained(folder)


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    write_folder(tmp_path, "text only")
    return tmp_path


def assert_same(pair: tuple[Tokenizer, CLIPTokenizer], text: str) -> None:
    ours, theirs = pair
    expected = theirs(text, padding="max_length", max_length=77, truncation=True).input_ids
    got = ours.encode(text, truncate=True)
    assert got.ids.tolist() == expected
    assert got.used == len(theirs(text, add_special_tokens=False, verbose=False).input_ids)


@pytest.mark.parametrize("text", TEXTS)
def test_ids_are_those_of_transformers(pair: tuple[Tokenizer, CLIPTokenizer], text: str) -> None:
    assert_same(pair, text)


@given(st.one_of(st.lists(st.sampled_from(PIECES), max_size=12).map("".join), st.text(max_size=40)))
def test_ids_are_those_of_transformers_for_any_text(pair: tuple[Tokenizer, CLIPTokenizer], text: str) -> None:
    assert_same(pair, text)


def test_padding_is_the_folders_own(folder: Path, format: str) -> None:
    ids = Tokenizer.load(folder).encode("to").ids
    assert ids[0] == SIZE - 2
    assert ids[2] == SIZE - 1
    assert set(ids[3:].tolist()) == {PADDING.get(format, SIZE - 1)}


def test_a_long_text_is_counted_whole_and_refused_or_cut(pair: tuple[Tokenizer, CLIPTokenizer]) -> None:
    text = "to, " * 20_000
    with pytest.raises(PromptTooLong, match="40000 tokens; at most 75 fit") as caught:
        pair[0].encode(text)
    assert (caught.value.used, caught.value.limit) == (40_000, 75)
    cut = pair[0].encode(text, truncate=True)
    assert cut.used == 40_000
    assert cut.ids.shape == (77,)
    assert cut.ids[-1] == SIZE - 1, "the end survives the cut"


def test_a_text_that_just_fits_is_not_refused(plain: Path) -> None:
    tokenizer = Tokenizer.load(plain)
    assert tokenizer.encode("to " * 75).used == 75
    with pytest.raises(PromptTooLong, match="76 tokens"):
        tokenizer.encode("to " * 76)


def test_the_length_is_the_folders_own(plain: Path) -> None:
    (plain / "tokenizer_config.json").write_text('{"model_max_length": 16}')
    tokenizer = Tokenizer.load(plain)
    assert tokenizer.encode("to").ids.shape == (16,)
    with pytest.raises(PromptTooLong, match="15 tokens; at most 14 fit"):
        tokenizer.encode("to " * 15)


@pytest.mark.parametrize("name", ["tokenizer_config.json", "vocab.json", "merges.txt"])
def test_a_missing_file_is_named(plain: Path, name: str) -> None:
    (plain / name).unlink()
    with pytest.raises(FolderError, match=rf"{name}: No such file or directory$"):
        Tokenizer.load(plain)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("tokenizer_config.json", "{", r"tokenizer_config\.json: not JSON"),
        (
            "tokenizer_config.json",
            '{"model_max_length": "long"}',
            r"tokenizer_config\.json: model_max_length: got 'long'",
        ),
        ("tokenizer_config.json", '{"model_max_length": 2}', r"model_max_length: got 2; allowed: whole numbers from 3"),
        ("tokenizer_config.json", '{"pad_token": 7}', r"tokenizer_config\.json: pad_token: got 7; expected text"),
        ("tokenizer_config.json", '{"pad_token": "<pad>"}', r"lacks the special token <pad>, its pad_token"),
        ("tokenizer_config.json", '{"added_tokens_decoder": {"x": {}}}', r"added tokens: got \{'x'"),
        ("special_tokens_map.json", '{"eos_token": {"text": 1}}', r"special_tokens_map\.json: eos_token: got \{'text'"),
        ("special_tokens_map.json", "[]", r"special_tokens_map\.json: got list"),
        ("vocab.json", "\x00", r"vocab\.json: not JSON"),
        ("vocab.json", '{"a": 0}', r"vocab\.json, merges\.txt: not a CLIP vocabulary"),
        ("vocab.json", '{"a": "b"}', r"vocab\.json, merges\.txt: not a CLIP vocabulary"),
        ("merges.txt", "#version: 0.2\nred\n", r"vocab\.json, merges\.txt: not a CLIP vocabulary"),
        (
            "merges.txt",
            "#version: 0.2\nред 東\n",
            r"vocab\.json, merges\.txt: not .*out of vocabulary",
        ),
        ("tokenizer.json", '{"model"', r"tokenizer\.json: not JSON"),
        ("tokenizer.json", '{"model": {"vocab": {}}}', r"tokenizer\.json: not a CLIP vocabulary"),
        ("tokenizer.json", '{"added_tokens": [1]}', r"tokenizer\.json: added tokens: got \[1\]"),
    ],
)
def test_a_broken_file_is_named(plain: Path, name: str, content: str, message: str) -> None:
    (plain / name).write_text(content)
    with pytest.raises(FolderError, match=message):
        Tokenizer.load(plain)
