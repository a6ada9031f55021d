import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import CLIPTokenizer

from predictor.engine.tokens import Tokenizer
from predictor.lab.shapes.album import CaptionEncoder
from predictor.lab.shapes.bpe import END, START, TOKENS, byte_symbols, learn_merges, write_tokenizer
from predictor.lab.shapes.captions import captions, vocabulary
from predictor.lab.shapes.drawings import sample_drawings

texts = st.one_of(st.text(max_size=40), st.text("abc red<|>'s,.\n\t 7é东", max_size=60)).filter(
    lambda text: START not in text.lower() and END not in text.lower()
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(vocabulary(), path)
    return path


@pytest.fixture(scope="module")
def theirs(folder: Path) -> CLIPTokenizer:
    return CLIPTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def ours(folder: Path) -> Tokenizer:
    return Tokenizer.load(folder)


@settings(deadline=None)
@given(texts)
def test_any_text_comes_back(theirs: CLIPTokenizer, text: str) -> None:
    """In lower case and up to white space, which CLIP does not keep."""
    ids = theirs(text, add_special_tokens=False).input_ids
    expected = "".join(letter.lower() for letter in unicodedata.normalize("NFC", text))
    assert "".join(theirs.decode(ids).split()) == "".join(expected.split())


@settings(deadline=None)
@given(texts)
def test_the_engine_reads_the_same_ids(theirs: CLIPTokenizer, ours: Tokenizer, text: str) -> None:
    expected = theirs(text, padding="max_length", max_length=TOKENS, truncation=True).input_ids
    assert ours.encode(text, truncate=True).ids.tolist() == expected


def test_each_word_is_one_token(theirs: CLIPTokenizer) -> None:
    for word in vocabulary():
        assert len(theirs(word, add_special_tokens=False).input_ids) == 1, word


def test_ids_run_from_bytes_to_the_two_special_tokens(theirs: CLIPTokenizer) -> None:
    merges = learn_merges(vocabulary())
    assert len(theirs) == 2 * 256 + len(merges) + 2
    assert (theirs.bos_token_id, theirs.eos_token_id) == (len(theirs) - 2, len(theirs) - 1)
    assert theirs.pad_token_id == theirs.eos_token_id
    assert theirs.model_max_length == TOKENS
    assert len(set(byte_symbols())) == 256


def test_captions_are_encoded_word_by_word_as_in_one_piece(theirs: CLIPTokenizer) -> None:
    encoder = CaptionEncoder(theirs)
    told = captions(sample_drawings(21, 0, 256), 2, 21)
    expected = theirs(told, padding="max_length", max_length=TOKENS, truncation=True).input_ids
    np.testing.assert_array_equal([encoder.encode(text) for text in told], expected)


def test_a_long_caption_is_cut_and_still_ends(theirs: CLIPTokenizer) -> None:
    text = "red circle " * 60
    expected = theirs(text, padding="max_length", max_length=TOKENS, truncation=True).input_ids
    assert CaptionEncoder(theirs).encode(text) == expected
