"""What a deployment does not want drawn: a list of phrases for prompts, a classifier's scores for pictures.

policy     prompt checked   pictures withheld from a score of
default    yes              the threshold t
low        yes              (1 + t) / 2
off        no               never: the key was granted that
"""

import asyncio
import importlib
import io
import math
import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import structlog
from PIL import Image

from predictor.core.account import Caller
from predictor.core.jobs import Verdict
from predictor.core.problems import InternalError, ModerationBlocked
from predictor.core.request import GenerationRequest
from predictor.edge.settings import EdgeSettings

log = structlog.get_logger("sdzero.edge")

Classify = Callable[[list[np.ndarray]], Sequence[float]]  # uint8 [h, w, 3] each → 0 (harmless) to 1 each

# What readers do not see: marks laid over letters, variation selectors, fillers. Beside them, all of category Cf:
# zero-width characters, soft hyphens, changes of direction.
UNSEEN = re.compile(
    "[\u0300-\u036f\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f"
    "\ufe00-\ufe0f\U000e0100-\U000e01ef\u180b-\u180d\u115f\u1160\u3164\uffa0\u17b4\u17b5]"
)
# Thai, Lao, Khmer, Burmese, Chinese and Japanese put no spaces between words: there each character is one.
UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U0003ffff"
)
WORD = re.compile(rf"[{UNSPACED}]|[^\W_{UNSPACED}]+")


def words(text: str) -> list[str]:
    """The words of a text as a reader would compare them: NFKC, case folded, without what is not seen."""
    text = "".join(character for character in text if unicodedata.category(character) != "Cf")
    # Folding takes letters apart that composing put together, and the other way round.
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return WORD.findall(UNSEEN.sub("", text))


def read_blocklist(path: str) -> list[tuple[str, ...]]:
    """The phrases of a file, each as its words: one a line, `#` begins a comment; none for no path.

    Raises:
        ValueError: the file cannot be read, or a line holds no word.
    """
    if not path:
        return []
    try:
        lines = Path(path).read_bytes().splitlines()
    except OSError as error:
        raise ValueError(f"--blocklist: {path}: {error.strerror}; allowed: a file that can be read") from None
    phrases = []
    for number, line in enumerate(lines, 1):
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").partition("#")[0].strip()
        except UnicodeDecodeError as error:
            raise ValueError(f"--blocklist: {path}:{number}: {error.reason}; allowed: UTF-8") from None
        phrase = tuple(words(text))
        if text and not phrase:
            raise ValueError(f"--blocklist: {path}:{number}: got {text!r}; allowed: words with letters or digits")
        if phrase:
            phrases.append(phrase)
    return phrases


def read_classifier(name: str) -> Classify | None:
    """The function that `MODULE:FUNCTION` names; None for no name.

    Raises:
        ValueError: there is none.
    """
    if not name:
        return None
    module, _, function = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"--classifier: got {name!r}: {error}; allowed: MODULE:FUNCTION to import") from None
    if not callable(found):
        raise ValueError(f"--classifier: got {name!r}, a {type(found).__name__}; allowed: a function")
    classify: Classify = found
    return classify


class Moderation:
    """Decides when a job is admitted, and scores the pictures when they are there.

    Args:
        phrases: what no prompt may hold, each as its words.
        classify: scores pictures; called from one thread, with all pictures of a generation.
        threshold: the score from which a picture is withheld.
    """

    def __init__(self, phrases: Iterable[tuple[str, ...]], classify: Classify | None, threshold: float) -> None:
        self._phrases = frozenset(phrases)
        self._lengths = sorted({len(phrase) for phrase in self._phrases})
        self._classify = classify
        self._threshold = threshold
        # One thread: a model seldom bears two callers.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="classifier")

    @classmethod
    def load(cls, settings: EdgeSettings) -> "Moderation":
        """What the settings name.

        Raises:
            ValueError: it cannot be loaded.
        """
        return cls(
            read_blocklist(settings.blocklist), read_classifier(settings.classifier), settings.classifier_threshold
        )

    def prompt(self, caller: Caller, request: GenerationRequest, low: bool = False) -> Verdict:
        """The verdict on the prompt. What is not wanted in the picture, the negative prompt, may be named.

        Args:
            caller: whose policy counts.
            request: whose prompt it is.
            low: OpenAI's `moderation: low`.

        Raises:
            ModerationBlocked: the prompt holds a phrase of the list; which one is not said.
        """
        if caller.policy == "off":
            return Verdict("off")
        if caller.policy not in ("default", "low"):
            raise ValueError(f"policy: got {caller.policy!r}; allowed: default, low, off")
        if self._holds(words(request.prompt)):
            allowed = "what the deployment's policy does not rule out"
            raise ModerationBlocked(f"prompt: it holds a blocked word or phrase; allowed: {allowed}", field="prompt")
        policy = "low" if low else caller.policy
        if self._classify is None:
            return Verdict(policy)
        return Verdict(policy, (1 + self._threshold) / 2 if policy == "low" else self._threshold)

    async def scores(self, pngs: Collection[bytes]) -> tuple[float, ...]:
        """The classifier's score of each picture, 0 to 1; none without a classifier.

        Raises:
            InternalError: the classifier failed, so nobody knows whether the pictures may be shown.
        """
        if self._classify is None:
            return ()
        classify = self._classify
        try:
            found = await asyncio.get_running_loop().run_in_executor(
                self._thread, lambda: tuple(float(score) for score in classify([_pixels(png) for png in pngs]))
            )
        except Exception as error:  # it is not ours: it may raise anything
            log.exception("classifier failed")
            raise InternalError("the safety classifier failed") from error
        if len(found) != len(pngs) or not all(math.isfinite(score) and 0 <= score <= 1 for score in found):
            log.error("classifier failed", pictures=len(pngs), scores=found[:100])
            raise InternalError("the safety classifier failed")
        return found

    def _holds(self, text: list[str]) -> bool:
        return any(
            tuple(text[start : start + length]) in self._phrases
            for length in self._lengths
            for start in range(len(text) - length + 1)
        )


def _pixels(png: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(png), formats=("PNG",)) as picture:
        return np.asarray(picture.convert("RGB"))
