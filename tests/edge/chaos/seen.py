"""What clients were told, and where it contradicts itself."""

import base64
import io
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from PIL import Image


@dataclass
class Promise:
    """A job that an edge has acknowledged."""

    key: str  # the name of the key that asked
    how: str  # of the load
    end: tuple[object, ...] | None = None  # what the first answer said that showed it ended


@dataclass
class Seen:
    """Of all clients together. `complaints` is empty when all is well."""

    promises: dict[str, Promise] = field(default_factory=dict)
    hits: set[str] = field(default_factory=set)  # jobs that a synchronous request got from the cache: they have no row
    idempotent: dict[tuple[str, str], str] = field(default_factory=dict)  # (key, Idempotency-Key) → job
    acts: Counter[str] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    complaints: list[str] = field(default_factory=list)

    def complain(self, text: str) -> None:
        self.complaints.append(text)

    def acknowledged(self, id: str, key: str, how: str) -> None:
        """An edge has answered with this job."""
        self.promises.setdefault(id, Promise(key, how))

    def view(self, view: dict[str, Any]) -> None:
        """An acknowledged job as an edge shows it; what has ended must never look different again."""
        promise = self.promises[view["id"]]
        if view["state"] == "active":
            if promise.end is not None:
                self.complain(f"{view['id']}: active again after {promise.end}")
            return
        seeds = tuple(image["seed"] for image in view["images"])
        end = (view["state"], view["finished"], (view["error"] or {}).get("code"), seeds)
        if promise.end is None:
            promise.end = end
        elif promise.end != end:
            self.complain(f"{view['id']}: first {promise.end}, then {end}")

    def pictures(self, id: str, base64_files: list[str], size: str, images: int) -> None:
        """Pictures that came with an answer."""
        if len(base64_files) != images:
            self.complain(f"{id}: {len(base64_files)} images, asked for {images}")
        for text in base64_files:
            if (found := dimensions(base64.b64decode(text))) != size:
                self.complain(f"{id}: an image of {found}, asked for {size}")


def dimensions(file: bytes) -> str:
    """WIDTHxHEIGHT of a picture that can be decoded to its last pixel."""
    try:
        with Image.open(io.BytesIO(file)) as picture:
            picture.load()
            return f"{picture.width}x{picture.height}"
    except OSError as error:
        return f"no picture: {error}"
