import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import CLIPTokenizer

from predictor.lab.bench.vocabulary import byte_characters, merges, write_tokenizer


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> CLIPTokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder, 49408, "!")
    return CLIPTokenizer.from_pretrained(folder)


def test_it_has_the_size_and_the_special_ids_of_clip(tokenizer: CLIPTokenizer) -> None:
    assert len(tokenizer) == 49408
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (49406, 49407, 0)
    assert tokenizer.model_max_length == 77


def test_short_words_are_single_tokens_and_case_does_not_matter(tokenizer: CLIPTokenizer) -> None:
    ids = tokenizer("a RED cat").input_ids
    assert tokenizer.convert_ids_to_tokens(ids) == ["<|startoftext|>", "a</w>", "red</w>", "cat</w>", "<|endoftext|>"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.text("abcxyz", min_size=1, max_size=12), min_size=1, max_size=6))
def test_words_survive_there_and_back(tokenizer: CLIPTokenizer, words: list[str]) -> None:
    text = " ".join(words)
    assert tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True).strip() == text


def test_every_character_has_a_token(tokenizer: CLIPTokenizer) -> None:
    ids = tokenizer("日本 é 🙂").input_ids
    assert tokenizer.unk_token_id not in ids[1:-1]


def test_every_merge_joins_tokens_that_come_before_it() -> None:
    known = set(byte_characters()) | {c + "</w>" for c in byte_characters()}
    for a, b in merges(48894):
        assert a in known
        assert b in known
        assert a + b not in known
        known.add(a + b)


def test_a_size_without_room_for_the_bytes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="vocabulary: got -14 merges; allowed: 0 to 65536"):
        write_tokenizer(tmp_path, 500, "!")


def test_ids_are_dense(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, 2048, "<|endoftext|>")
    ids = json.loads((tmp_path / "vocab.json").read_text()).values()
    assert sorted(ids) == list(range(2048))
