"""What people might write about a drawing: many wordings, parts of the truth, nothing at all, at times a mistake.

Partial and empty captions teach the model what is left open, which is what guidance and negative prompts subtract. One
caption in twenty describes another drawing, as captions in the wild do: a model that believes its captions only mostly
needs guidance to be sure.
"""

import dataclasses
import itertools
import random
import zlib
from typing import Final

from predictor.lab.shapes.drawings import COLOURS, SHAPES, SIZES, Drawings, Facts

WORDS: Final[dict[str, tuple[str, ...]]] = {
    **{name: (name,) for name in (*SHAPES, *COLOURS, *SIZES)},
    "circle": ("circle", "circle", "disc", "disk"),
    "square": ("square", "square", "box"),
    "cross": ("cross", "cross", "plus sign"),
    "diamond": ("diamond", "diamond", "rhombus"),
    "ring": ("ring", "ring", "hoop", "donut"),
    "red": ("red", "red", "red", "crimson", "scarlet"),
    "yellow": ("yellow", "yellow", "golden"),
    "green": ("green", "green", "emerald"),
    "cyan": ("cyan", "cyan", "turquoise"),
    "purple": ("purple", "purple", "violet"),
    "grey": ("grey", "gray"),
    "small": ("small", "small", "little", "tiny"),
    "medium": ("medium", "medium-sized"),
    "large": ("large", "big", "huge"),
    "middle": ("in the middle", "in the centre", "in the center"),
    "left": ("on the left", "to the left", "on the left side"),
    "right": ("on the right", "to the right", "on the right side"),
    "top": ("at the top", "near the top", "on top"),
    "bottom": ("at the bottom", "near the bottom"),
}
"""Every way to say a name; a word listed twice is said twice as often."""

OPENINGS: Final = ("", "", "", "a picture of ", "a drawing of ", "an image of ", "draw ")
SUBJECTS: Final = (
    "a {size} {colour} {shape}",
    "{size} {colour} {shape}",
    "one {size} {colour} {shape}",
    "the {size} {colour} {shape}",
    "a {colour} {shape}, {size}",
    "a {size} {shape} in {colour}",
    "a {size} {shape} that is {colour}",
    "{colour} {size} {shape}",
)
GROUNDS: Final = (
    "on a {background} background",
    "on a {background} backdrop",
    "on {background}",
    "against a {background} background",
    "against {background}",
    "in front of a {background} background",
    "with a {background} background",
    "over a {background} backdrop",
)
BARE_GROUNDS: Final = (
    "{background} background",
    "{background} backdrop",
    "a {background} background",
    "background: {background}",
)
_HELD_OUT_ONE_IN: Final = 8
_EMPTY_SHARE: Final = 0.12
_PARTIAL_SHARE: Final = 0.3
_MISTAKE_SHARE: Final = 0.05


@dataclasses.dataclass(frozen=True)
class Wording:
    """How a complete caption is put together. `ground_first` puts a bare ground and a comma before the subject."""

    opening: str
    subject: str
    ground: str
    ground_first: bool


def wordings(*, held_out: bool) -> list[Wording]:
    """Wordings kept for checking, or all others."""
    after = (Wording(o, s, g, ground_first=False) for o, s, g in itertools.product(OPENINGS, SUBJECTS, GROUNDS))
    commas = (
        Wording("", s, g, ground_first=first)
        for s, g, first in itertools.product(SUBJECTS, BARE_GROUNDS, (True, False))
    )
    return [w for w in (*after, *commas) if _is_held_out(w) == held_out]


def _is_held_out(wording: Wording) -> bool:
    text = f"{wording.opening}|{wording.subject}|{wording.ground}|{wording.ground_first}"
    return zlib.crc32(text.encode()) % _HELD_OUT_ONE_IN == 0


def compose(facts: Facts, wording: Wording, say: random.Random, *, name_size: bool, name_place: bool) -> str:
    """A caption naming shape, colour and background, and size and place where asked for."""
    subject = _subject(wording.subject, facts, say, name_size=name_size)
    if name_place:
        subject = f"{subject} {say.choice(WORDS[facts.place])}"
    ground = wording.ground.format(background=say.choice(WORDS[facts.background]))
    if wording.ground_first:
        return f"{ground}, {subject}"
    joint = ", " if wording.ground in BARE_GROUNDS else " "
    return f"{wording.opening}{subject}{joint}{ground}"


def _subject(pattern: str, facts: Facts, say: random.Random, *, name_size: bool) -> str:
    if not name_size:
        pattern = pattern.replace(", {size}", "").replace("{size} ", "")
    return pattern.format(
        size=say.choice(WORDS[facts.size]), colour=say.choice(WORDS[facts.colour]), shape=say.choice(WORDS[facts.shape])
    )


def partial(facts: Facts, say: random.Random) -> str:
    """A caption that leaves at least one of shape, colour and background open."""
    shape, colour = say.choice(WORDS[facts.shape]), say.choice(WORDS[facts.colour])
    background, size = say.choice(WORDS[facts.background]), say.choice(WORDS[facts.size])
    ground = say.choice(BARE_GROUNDS).format(background=background)
    on_ground = say.choice(GROUNDS).format(background=background)
    place = say.choice(WORDS[facts.place])
    return say.choice(
        (
            *(
                f"a {shape}",
                shape,
                f"a {size} {shape}",
                f"{size} {shape}",
                f"a drawing of a {shape}",
                f"a {shape} {place}",
            ),
            *(colour, f"something {colour}", f"a {colour} thing", f"a {colour} shape", f"{size} {colour} shape"),
            *(ground, ground, f"something {on_ground}", f"anything {on_ground}"),
            *(f"a {colour} {shape}", f"{colour} {shape}", f"a {size} {colour} {shape}", f"a {colour} {shape} {place}"),
            *(f"a {shape} {on_ground}", f"{ground}, {shape}", f"a {colour} thing {on_ground}", f"{colour} {on_ground}"),
            *(f"something {size}", f"something {place}"),
        )
    )


def caption(facts: Facts, say: random.Random, known: list[Wording]) -> str:
    """One caption as training sees it: complete, partial or empty. A place off the centre is mostly named."""
    kind = say.random()
    if kind < _EMPTY_SHARE:
        return ""
    if kind < _EMPTY_SHARE + _PARTIAL_SHARE:
        return partial(facts, say)
    name_place = say.random() < (0.08 if facts.place == "middle" else 0.85)
    return compose(facts, say.choice(known), say, name_size=say.random() < 0.5, name_place=name_place)


def captions(drawings: Drawings, each: int, seed: int) -> list[str]:
    """`each` captions for every drawing, drawing by drawing, the same for the same seed."""
    say = random.Random(seed)  # noqa: S311
    known = wordings(held_out=False)
    facts = [drawings.facts(row) for row in range(len(drawings))]
    return [
        caption(say.choice(facts) if say.random() < _MISTAKE_SHARE else truth, say, known)
        for truth in facts
        for _ in range(each)
    ]


def vocabulary() -> list[str]:
    """Every word that a caption can hold, for learning the tokenizer."""
    texts = itertools.chain(
        *WORDS.values(), OPENINGS, SUBJECTS, GROUNDS, BARE_GROUNDS, ("something anything thing shape",)
    )
    bare = (text.format(size="", colour="", shape="", background="") for text in texts)
    return sorted({word.strip(",:") for text in bare for word in text.replace("-", " ").split()} - {""})
