import random
import re

from hypothesis import given, settings
from hypothesis import strategies as st

from predictor.lab.shapes.captions import WORDS, Wording, caption, captions, compose, partial, vocabulary, wordings
from predictor.lab.shapes.drawings import (
    BACKGROUNDS,
    PLACES,
    SHAPE_COLOURS,
    SHAPES,
    SIZES,
    Facts,
    is_held_out,
    sample_drawings,
)
from predictor.lab.shapes.examination import questions

TRAINED, UNSEEN = wordings(held_out=False), wordings(held_out=True)
COLOUR_WORDS = {word: name for name in {*SHAPE_COLOURS, *BACKGROUNDS} for word in WORDS[name]}
COLOUR = "|".join(COLOUR_WORDS)
GROUND = re.compile(
    rf"^(?:a )?({COLOUR}) (?:background|backdrop)(?:, |$)|^background: ({COLOUR})(?:, |$)"
    rf"|(?: on| against| in front of| with| over) (?:a )?({COLOUR})(?: background| backdrop)?$"
    rf"|, (?:a )?({COLOUR}) (?:background|backdrop)$|, background: ({COLOUR})$"
)
"""Where a caption says what is behind: at its start or at its end."""

facts = st.builds(
    Facts,
    st.sampled_from(SHAPES),
    st.sampled_from(SHAPE_COLOURS),
    st.sampled_from(BACKGROUNDS),
    st.sampled_from(tuple(SIZES)),
    st.sampled_from(tuple(PLACES)),
).filter(lambda f: f.colour != f.background)


def said(text: str, names: tuple[str, ...]) -> set[str]:
    """Which of the names a text says, in any of their words."""
    return {name for name in names for word in WORDS[name] if re.search(rf"(?<![\w-]){word}(?![\w-])", text)}


def understood(text: str) -> tuple[str, str, str]:
    """Shape, colour and background that a complete caption claims, read back from its words."""
    ground = GROUND.search(text)
    assert ground, text
    background = COLOUR_WORDS[next(filter(None, ground.groups()))]
    subject = text[: ground.start()] + text[ground.end() :]
    (shape,), (colour,) = said(text, SHAPES), said(subject, SHAPE_COLOURS)
    return shape, colour, background


@settings(deadline=None)
@given(facts, st.sampled_from(TRAINED + UNSEEN), st.randoms(use_true_random=False), st.booleans(), st.booleans())
def test_complete_captions_are_true(
    truth: Facts, wording: Wording, say: random.Random, name_size: bool, name_place: bool
) -> None:
    text = compose(truth, wording, say, name_size=name_size, name_place=name_place)
    assert understood(text) == (truth.shape, truth.colour, truth.background)
    assert said(text, tuple(SIZES)) == ({truth.size} if name_size else set())
    assert said(text, tuple(PLACES)) == ({truth.place} if name_place else set())
    assert "{" not in text
    assert "  " not in text


@settings(deadline=None)
@given(facts, st.randoms(use_true_random=False))
def test_no_caption_says_anything_else(truth: Facts, say: random.Random) -> None:
    for text in (partial(truth, say), caption(truth, say, TRAINED)):
        assert said(text, SHAPES) <= {truth.shape}
        assert said(text, (*SHAPE_COLOURS, "grey")) <= {truth.colour, truth.background}
        assert said(text, tuple(SIZES)) <= {truth.size}
        assert said(text, tuple(PLACES)) <= {truth.place}


@settings(deadline=None)
@given(facts, st.randoms(use_true_random=False))
def test_partial_captions_leave_something_open(truth: Facts, say: random.Random) -> None:
    text = partial(truth, say)
    ground = GROUND.search(text)
    assert not (said(text, SHAPES) and ground and said(text.replace(ground.group(), " "), SHAPE_COLOURS)), text


def test_held_out_combinations_are_never_described_in_training() -> None:
    texts = captions(sample_drawings(11, 0, 2048), 4, 11)
    complete = [text for text in texts if _is_complete(text)]
    assert len(complete) > 4000
    assert not [text for text in complete if is_held_out(*understood(text))]


def _is_complete(text: str) -> bool:
    ground = GROUND.search(text)
    return bool(ground and said(text, SHAPES) and said(text.replace(ground.group(), " "), SHAPE_COLOURS))


def test_held_out_wordings_are_never_used_in_training() -> None:
    assert not set(TRAINED) & set(UNSEEN)
    truth = Facts("heart", "orange", "black", "small", "left")

    def texts(known: list[Wording]) -> set[str]:
        # The same words each time, so that equal wordings give equal texts.
        return {compose(truth, wording, random.Random(0), name_size=True, name_place=False) for wording in known}

    trained, unseen = texts(TRAINED), texts(UNSEEN)
    assert len(unseen) > 30
    assert not trained & unseen
    assert 0.08 < len(unseen) / len(trained | unseen) < 0.17


def test_one_caption_in_twenty_is_mistaken_and_one_in_eight_empty() -> None:
    drawings = sample_drawings(12, 0, 2048)
    texts = captions(drawings, 4, 12)
    told = [(text, drawings.facts(row // 4)) for row, text in enumerate(texts) if _is_complete(text)]
    wrong = sum(understood(text) != (f.shape, f.colour, f.background) for text, f in told)
    assert 0.03 < wrong / len(told) < 0.07
    assert 0.1 < texts.count("") / len(texts) < 0.14


def test_the_same_seed_says_the_same() -> None:
    drawings = sample_drawings(13, 0, 32)
    assert captions(drawings, 2, 5) == captions(drawings, 2, 5)
    assert captions(drawings, 2, 5) != captions(drawings, 2, 6)


def test_the_vocabulary_holds_every_word() -> None:
    texts = captions(sample_drawings(14, 0, 1024), 4, 14) + [q.prompt for q in questions(512, seed=14)]
    words = {word for text in texts for word in re.findall("[a-z]+", text)}
    assert words <= set(vocabulary())


def test_questions_are_held_out_and_true() -> None:
    asked = questions(256, seed=3)
    assert all(is_held_out(q.facts.shape, q.facts.colour, q.facts.background) for q in asked)
    assert all(understood(q.prompt) == (q.facts.shape, q.facts.colour, q.facts.background) for q in asked)
    assert len({q.seed for q in asked}) == 256
    assert questions(256, seed=3) == asked
