"""Pixels → files, off the event loop."""

import asyncio
import base64
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from predictor.core.request import ImageEncoding

# Level 1 makes a 512x512 photograph in a fifth of the default level's time, and a tenth larger.
OPTIONS: dict[str, dict[str, Any]] = {
    "png": {"format": "PNG", "compress_level": 1},
    "webp": {"format": "WEBP", "lossless": True, "quality": 0, "method": 0},
    "jpeg": {"format": "JPEG"},
}


class Packer:
    """Encodes pictures in `threads` threads; Pillow lets go of the interpreter's lock meanwhile."""

    def __init__(self, threads: int) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="pack")

    async def pack(self, pixels: Sequence[np.ndarray], encoding: ImageEncoding) -> list[bytes]:
        """Base64 text of one file per picture; each picture is uint8 [height, width, 3]."""
        loop = asyncio.get_running_loop()
        return await asyncio.gather(*(loop.run_in_executor(self._threads, packed, one, encoding) for one in pixels))

    def warm(self) -> None:
        """Import in the background what packing needs; what goes wrong with it, the first request will say."""
        self._threads.submit(_pack_one_of_each)

    def close(self) -> None:
        """Let the threads end."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def packed(pixels: np.ndarray, encoding: ImageEncoding) -> bytes:
    """Base64 text of one picture's file."""
    # Imported late, for the port opens without them; each by name, or Pillow imports dozens to find that of WebP.
    from PIL import Image, JpegImagePlugin, PngImagePlugin, WebPImagePlugin  # noqa: F401

    options = dict(OPTIONS[encoding.format])
    if encoding.format == "jpeg":
        options["quality"] = encoding.quality
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, **options)
    return base64.b64encode(file.getbuffer())


def _pack_one_of_each() -> None:
    for form in OPTIONS:
        packed(np.zeros((1, 1, 3), np.uint8), ImageEncoding(form))  # type: ignore[arg-type]
