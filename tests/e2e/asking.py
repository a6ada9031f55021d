"""Clients of the release: what is asked for, what came back, and when."""

import base64
import io
import time
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
from PIL import Image

from predictor.lab.shapes.checker import check
from tests.e2e.cluster import Way

OPENAI = "/v1/images/generations"
JOBS = "/v1/jobs"
PATIENCE = 300.0  # seconds; any cold start, on any cluster

Picture = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Drawing:
    """What a prompt asks for, so that the pixels can be held against it."""

    shape: str
    colour: str
    background: str

    @property
    def prompt(self) -> str:
        return f"a {self.colour} {self.shape} on a {self.background} background"

    def assert_in(self, picture: Picture) -> None:
        """The pixel checker finds exactly this."""
        found = check(picture)
        assert (found.shape, found.colour, found.background) == (self.shape, self.colour, self.background)


# What the demo model draws most surely: of a hundred pictures of other prompts a few are wrong.
SQUARE = Drawing("square", "white", "black")
STAR = Drawing("star", "yellow", "black")


@dataclass(frozen=True)
class Answer:
    """One HTTP answer; times in seconds since the epoch, by the client's clock."""

    status: int
    headers: httpx.Headers
    body: bytes
    sent: float
    first_byte: float
    ended: float

    @property
    def json(self) -> Any:
        return httpx.Response(self.status, content=self.body).json()


def ask(client: httpx.Client, path: str, body: object, headers: dict[str, str] | None = None) -> Answer:
    """POST, and remember when the first byte came."""
    sent = time.time()
    with client.stream("POST", path, json=body, headers=headers) as reply:
        first_byte = time.time()
        content = reply.read()
    return Answer(reply.status_code, reply.headers, content, sent, first_byte, time.time())


def connect(way: Way, key: str | None = None, **options: Any) -> httpx.Client:
    """A client of a service, with a key if there is one."""
    bearer = {"Authorization": f"Bearer {key}"} if key else {}
    return httpx.Client(base_url=way.url, headers=way.headers | bearer, timeout=PATIENCE, **options)


def order(drawing: Drawing, seed: int, **fields: object) -> dict[str, object]:
    """A request of the Images API; cheap unless it says otherwise."""
    return {"prompt": drawing.prompt, "seed": seed, "size": "128x128", "num_inference_steps": 10} | fields


def picture_of(answer: Answer) -> Picture:
    """The only picture of an answer of the Images API; uint8 [height, width, 3]."""
    assert answer.status == 200, answer.body.decode(errors="replace")[:2000]
    (image,) = answer.json["data"]
    return decode(base64.b64decode(image["b64_json"]))


def decode(png: bytes) -> Picture:
    """A picture's file → uint8 [height, width, 3]."""
    with Image.open(io.BytesIO(png)) as image:
        return np.asarray(image.convert("RGB"))
