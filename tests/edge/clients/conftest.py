"""OpenAI's clients of the shared edge, and what its predictor counts."""

import base64
import io
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np
import pytest
from openai import AsyncOpenAI, OpenAI
from PIL import Image


@dataclass(frozen=True)
class Counts:
    """What a predictor has been asked for."""

    url: str

    def samples(self, name: str) -> dict[str, float]:
        """Every sample of that name, by its labels as they stand in `/metrics`."""
        lines = httpx.get(f"{self.url}/metrics").text.splitlines()
        found = [
            line.removeprefix(name).rpartition(" ") for line in lines if line.startswith((f"{name} ", f"{name}{{"))
        ]
        assert found, name
        return {labels: float(value) for labels, _, value in found}

    @property
    def in_flight(self) -> float:
        return self.samples("sdzero_images_in_flight")[""]

    @property
    def requests(self) -> float:
        """Those that have ended, whatever came of them."""
        return sum(self.samples("sdzero_requests_total").values())

    @property
    def cancelled(self) -> float:
        return self.samples("sdzero_requests_total")['{outcome="cancelled"}']


def opened(content: bytes | str) -> Image.Image:
    """A picture of a file's bytes, or of their base64."""
    data = base64.b64decode(content, validate=True) if isinstance(content, str) else content
    picture = Image.open(io.BytesIO(data))
    picture.load()
    return picture


@pytest.fixture(scope="session")
def picture() -> Callable[[bytes | str], Image.Image]:
    return opened


@pytest.fixture(scope="session")
def pixels() -> Callable[[bytes | str], np.ndarray]:
    """A file's bytes, or their base64 → uint8 [height, width, 3]."""
    return lambda content: np.asarray(opened(content).convert("RGB"))


@pytest.fixture
def counts(edge, eventually) -> Counts:
    """Of the shared edge's predictor, once it has nothing left to do."""
    counts = Counts(edge.predictor_url)
    eventually(lambda: counts.in_flight == 0)
    return counts


@pytest.fixture(scope="session")
def connect() -> Iterator[Callable[..., OpenAI]]:
    """Clients of an edge with a key, with further options of `OpenAI`."""
    made: list[OpenAI] = []

    def new(edge: Any, key: str, **options: Any) -> OpenAI:
        made.append(OpenAI(base_url=f"{edge.url}/v1", api_key=key, **options))
        return made[-1]

    yield new
    for client in made:
        client.close()


@pytest.fixture(scope="session")
def openai(connect, edge, key) -> OpenAI:
    return connect(edge, key, max_retries=0)


@pytest.fixture
async def async_openai(edge, key) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{edge.url}/v1", api_key=key, max_retries=0) as client:
        yield client
