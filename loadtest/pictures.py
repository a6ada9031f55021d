"""Whether pictures are the right ones: equal requests must show equal pixels, and nobody gets another's picture.

The reference of a repeated identity is the picture that most of its answers agree with, within `TOLERANCE`: pictures
that were made in one batch with others differ from single ones by rounding.
"""

import io
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt
from PIL import Image

from loadtest.samples import Sample

TOLERANCE: Final = 4  # of 255, of any pixel
Pixels = npt.NDArray[np.uint8]


def judged(samples: Iterable[Sample], load: Callable[[str], Pixels | None]) -> list[Sample]:
    """The samples, those with wrong pictures marked `wrong` and those with another request's job `duplicated`.

    Args:
        samples: of one target; services of two targets need not draw alike.
        load: a digest → the picture's pixels [height, width, 3], None where it was not kept.
    """
    found = list(samples)
    answered = [sample for sample in found if sample.outcome == "ok" and sample.digests]
    wrong: dict[int, str] = {}
    wrong |= _misdelivered(answered)
    by_identity: dict[int, list[Sample]] = {}
    for sample in answered:
        by_identity.setdefault(sample.identity, []).append(sample)
    for same in by_identity.values():
        wrong |= _disagreeing(same, load)
    jobs = Counter((sample.job, sample.identity) for sample in answered if sample.job)
    owners: dict[str, int] = {}
    for job, identity in jobs:
        owners.setdefault(job, identity)
    judged = []
    for sample in found:
        if id(sample) in wrong:
            judged.append(msgspec.structs.replace(sample, outcome="wrong", error=wrong[id(sample)]))
        elif sample.outcome == "ok" and sample.job and owners[sample.job] != sample.identity:
            why = f"job {sample.job} has answered another request as well"
            judged.append(msgspec.structs.replace(sample, outcome="duplicated", error=why))
        else:
            judged.append(sample)
    return judged


def from_folder(folder: Path) -> Callable[[str], Pixels | None]:
    """Pixels of the files that the generator kept, each decoded once."""
    known: dict[str, Pixels | None] = {}

    def load(digest: str) -> Pixels | None:
        if digest not in known:
            path = folder / digest
            known[digest] = pixels(path.read_bytes()) if path.exists() else None
        return known[digest]

    return load


def pixels(file: bytes) -> Pixels:
    """A picture's file → uint8 [height, width, 3].

    Raises:
        OSError: it cannot be decoded.
    """
    with Image.open(io.BytesIO(file)) as picture:
        return np.asarray(picture.convert("RGB"))


def _misdelivered(answered: list[Sample]) -> dict[int, str]:
    """Answers whose first picture is the one of another identity. Whose it is, is what most of its owners say."""
    owners: dict[str, Counter[int]] = {}
    for sample in answered:
        for digest in set(sample.digests.split()):
            owners.setdefault(digest, Counter())[sample.identity] += 1
    wrong = {}
    for sample in answered:
        for digest in sample.digests.split():
            others = owners[digest]
            if len(others) < 2:
                continue
            # Of two claims alike, the earlier request's: the picture cannot have been there before it was asked for.
            first = min(s.intended for s in answered if s.identity == sample.identity)
            rivals = [identity for identity in others if identity != sample.identity]
            best = max(rivals, key=lambda identity: others[identity])
            mine = others[sample.identity]
            rival_first = min(s.intended for s in answered if s.identity == best)
            if others[best] > mine or (others[best] == mine and rival_first < first):
                wrong[id(sample)] = f"the picture of another request, {digest}"
    return wrong


def _disagreeing(same: list[Sample], load: Callable[[str], Pixels | None]) -> dict[int, str]:
    """Of answers to one request: those whose pictures are not what most others show."""
    kinds = Counter(sample.digests for sample in same)
    if len(kinds) < 2:
        return {}
    agree = {one: sum(count for other, count in kinds.items() if _alike(one, other, load)) for one in kinds}
    reference = max(kinds, key=lambda kind: (agree[kind], kinds[kind]))
    return {
        id(sample): f"not the pixels of {reference}, which {agree[reference]} of {len(same)} answers show"
        for sample in same
        if not _alike(sample.digests, reference, load)
    }


def _alike(one: str, other: str, load: Callable[[str], Pixels | None]) -> bool:
    if one == other:
        return True
    names = list(zip(one.split(), other.split(), strict=False))
    if len(one.split()) != len(other.split()):
        return False
    for left, right in names:
        a, b = load(left), load(right)
        if left != right and (a is None or b is None or a.shape != b.shape or _apart(a, b) > TOLERANCE):
            return False
    return True


def _apart(a: Pixels, b: Pixels) -> int:
    return int(np.abs(a.astype(np.int16) - b.astype(np.int16)).max(initial=0))
