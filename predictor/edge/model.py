"""What the edge knows of the predictor's model without waking it."""

import asyncio
from pathlib import Path

import msgspec
import structlog

from predictor.core.problems import DeadlineExceeded, Problem
from predictor.core.request import Capabilities
from predictor.edge.predictor import Predictor
from predictor.edge.stores.models import Models

AWAKE_SECONDS = 10.0  # for an answer of a predictor that has just answered
log = structlog.get_logger("sdzero.edge")


def read_capabilities(path: str) -> Capabilities | None:
    """What `sdzero capabilities` wrote; None for no path.

    Raises:
        ValueError: the file cannot be read as that.
    """
    if not path:
        return None
    try:
        return msgspec.json.decode(Path(path).read_bytes(), type=Capabilities)
    except (OSError, msgspec.DecodeError) as error:
        raise ValueError(f"--capabilities: {path}: {error}; allowed: a file that `sdzero capabilities` wrote") from None


class Model:
    """The model's capabilities: told by a file, remembered from an earlier day, or learned with the first request."""

    def __init__(self, name: str, predictor: Predictor, models: Models, told: Capabilities | None) -> None:
        self.name = name
        self.known = told
        self._predictor = predictor
        self._models = models
        self._learning = asyncio.Lock()

    async def recall(self) -> None:
        """Take what an earlier edge has learned, if no file has told."""
        if self.known is None:
            self.known = await self._models.get(self.name)

    async def capabilities(self, seconds: float) -> Capabilities:
        """The capabilities; wakes the predictor if nobody has told them, so ask only for who may do that.

        Raises:
            DeadlineExceeded: not within `seconds`.
            Problem: what the predictor said.
        """
        if self.known is not None:
            return self.known
        try:
            async with asyncio.timeout(seconds), self._learning:
                return self.known or await self.learn()
        except TimeoutError:
            raise DeadlineExceeded(f"the model's capabilities were not known within {seconds:.0f} s") from None

    async def learn(self, seconds: float = 600.0) -> Capabilities:
        """Ask the predictor, and remember; called when it is awake anyway, or must be woken for a request."""
        self.known = await self._predictor.capabilities(seconds)
        await self._models.put(self.name, self.known)
        return self.known

    async def saw(self, revision: str) -> None:
        """An answer came from a model of this revision; if it is another than the known, learn again."""
        if self.known is None or self.known.revision == revision:
            return
        log.warning("model changed", known=self.known.revision, now=revision)
        try:
            await self.learn(AWAKE_SECONDS)
        except Problem as problem:
            log.warning("model not learned", code=problem.code)
