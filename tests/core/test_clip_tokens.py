"""The engine's tokenizer, which runs on the `tokenizers` library, is the truth."""

import json
import unicodedata
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from predictor.core.clip_tokens import READ, Counter, check_length, counters
from predictor.core.problems import InvalidField
from predictor.core.request import FixedToken, GenerationRequest, TokenRules
from predictor.engine.tokens import Tokenizer
from predictor.lab.bench.vocabulary import write_tokenizer

DEMO = Path(__file__).parents[2] / "predictor" / "models" / "shapes" / "tokenizer"
START, END = "<|startoftext|>", "<|endoftext|>"
REQUEST = GenerationRequest(
    prompt="",
    negative_prompt="",
    seed=0,
    steps=1,
    guidance_scale=1.0,
    height=64,
    width=64,
    sampler="euler",
    num_images=1,
    truncate_prompt=False,
)


def known(character: str) -> bool:
    return unicodedata.category(character) not in ("Cn", "Cs")


CHARACTERS = st.characters(exclude_categories=("Cs", "Cn"))
PIECES = [START, END, "<|ENDOFTEXT|>", "<|", "|>", " ", "\n", "\x00", "\x1c", "\x85", "\u3000", "e\u0301", "'s", "'LL"]
PIECES += [*"!É'7東🎨_Σςſẞﬁ½²٣각Ⅷ", "circle", "Small", "abcdef", "<cat-toy>", "<CAT-TOY>", "\u1100\u1161\u11a8", "İ"]
TEXTS = st.one_of(
    st.lists(st.sampled_from(PIECES), max_size=40).map("".join),
    st.text(CHARACTERS, max_size=60),
    st.text("abcdefghij", max_size=200),
    st.text("ab !", max_size=200),
)


def token(content: str, normalized: bool, special: bool = True) -> dict[str, object]:
    return {"content": content, "normalized": normalized, "special": special, "lstrip": False, "rstrip": False}


@pytest.fixture(scope="module", params=["demo", "large", "sdxl's second", "textual inversion"])
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    if request.param == "demo":
        return Tokenizer.load(DEMO)
    folder = tmp_path_factory.mktemp("tokenizer")
    size = 49408 if request.param == "large" else 2048
    write_tokenizer(folder, size, END)
    ends = {str(size - 2): token(START, True), str(size - 1): token(END, False)}
    more = {
        "large": {},
        "sdxl's second": {"pad_token": "!", "added_tokens_decoder": {"0": token("!", False)} | ends},
        "textual inversion": {"added_tokens_decoder": ends | {str(size): token("<cat-toy>", True, special=False)}},
    }[request.param]
    roles = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 77} | roles | more))
    return Tokenizer.load(folder)


@pytest.fixture(scope="module")
def counter(tokenizer: Tokenizer) -> Counter:
    assert tokenizer.rules is not None
    return counters((tokenizer.rules,))[0]


@given(text=TEXTS)
def test_a_text_has_as_many_tokens_as_the_engine_makes_of_it(tokenizer, counter, text):
    used, exact = counter.count(text)
    truth = tokenizer.encode(text, truncate=True).used
    assert used == truth if exact else counter.limit < used <= truth


@given(text=st.text(st.characters(exclude_categories=("Cs",)), max_size=60))
def test_of_characters_that_nobody_has_heard_of_no_more_tokens_are_counted_than_there_are(tokenizer, counter, text):
    assert counter.count(text)[0] <= tokenizer.encode(text, truncate=True).used


def test_every_character_is_seen_as_the_engine_sees_it():
    tokenizer = Tokenizer.load(DEMO)
    (counter,) = counters((tokenizer.rules,))
    for character in filter(known, map(chr, range(0x30000))):
        text = f"a{character}1{character}!"
        assert counter.count(text) == (tokenizer.encode(text).used, True), hex(ord(character))


@pytest.mark.parametrize(
    "text",
    [
        "a" * 8192,
        "ab" * 4096,
        "!" * 8192,
        "\u0345\u0301" * 2048,
        "東" * 2730,
        END * 630,
        "a\u0378" * 2730,
        " " * 200_000 + "circle " * 30_000,
    ],
)
def test_of_a_hostile_text_the_engine_would_count_as_many_at_least(tokenizer, counter, text):
    used, exact = counter.count(text)
    truth = tokenizer.encode(text, truncate=True).used
    assert used == truth if exact else used <= truth
    assert used > counter.limit


def test_a_text_that_is_too_long_by_far_is_not_counted_to_its_end(tokenizer, counter):
    used, exact = counter.count("a" * 8192)
    assert (counter.limit < used <= tokenizer.encode("a" * 8192, truncate=True).used, exact) == (True, False)


def test_white_space_is_no_reason_to_stop(counter):
    assert counter.count("circle" + " " * 10 * READ + "circle") == (2 * counter.count("circle")[0], True)


def too_long(tokenizers, **fields):
    with pytest.raises(InvalidField) as caught:
        check_length(msgspec.structs.replace(REQUEST, **fields), tokenizers)
    return caught.value.field, caught.value.message


def test_a_prompt_that_does_not_fit_is_refused_in_the_engines_words():
    rules = (Tokenizer.load(DEMO).rules,)
    for name in ("prompt", "negative_prompt"):
        check_length(msgspec.structs.replace(REQUEST, **{name: "circle " * 75}), rules)
        said = f"{name}: got 76 tokens; allowed: at most 75, or set truncate_prompt"
        assert too_long(rules, **{name: "circle " * 76}) == (name, said)
        cut = msgspec.structs.replace(REQUEST, **{name: "circle " * 76}, truncate_prompt=True)
        check_length(cut, rules)
        check_length(msgspec.structs.replace(cut, truncate_prompt=False), ())
    assert "got at least " in too_long(rules, prompt="a" * 8192)[1]


def test_tokenizers_with_the_same_merges_need_them_once():
    plain = TokenRules(10, "a b</w>\nab c</w>", ())
    marks = TokenRules(5, None, (FixedToken("!", normalized=False),))
    check_length(msgspec.structs.replace(REQUEST, prompt="ab " * 10), (plain,))
    check_length(msgspec.structs.replace(REQUEST, prompt="ab " * 5), (plain, marks))
    assert "got 6 tokens; allowed: at most 5" in too_long((plain, marks), prompt="!!!!!!")[1]
    assert "got 6 tokens; allowed: at most 5" in too_long((plain, marks), prompt="ab " * 6)[1]
