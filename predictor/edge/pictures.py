"""The stored PNG → the file that a client wants, off the event loop."""

import asyncio
import base64
import io
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from predictor.core.problems import InternalError
from predictor.core.request import ImageEncoding

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

MAX_PIXELS = 2**26  # 8192 x 8192; a file that says more is a bomb
HEAD = 8 + 25  # bytes of a PNG's signature and IHDR, which must be its first chunk (PNG, section 5.6)
EXIF, USER_COMMENT = 0x8769, 0x9286  # Exif 3.0, sections 4.6.3 and 4.6.6
MAX_SEGMENT = 65533  # bytes of a JPEG segment
# Level 1 makes a 512x512 photograph in a fifth of the default level's time, and a tenth larger.
OPTIONS: dict[str, dict[str, Any]] = {
    "png": {"format": "PNG", "compress_level": 1},
    "webp": {"format": "WEBP", "lossless": True, "quality": 0, "method": 0},
    "jpeg": {"format": "JPEG"},
}

T = TypeVar("T")


class Pictures:
    """Reads and writes pictures in `threads` threads; Pillow lets go of the interpreter's lock meanwhile.

    Every method raises InternalError for a file that is no PNG, is broken, or has more than MAX_PIXELS.
    """

    def __init__(self, threads: int) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="pictures")

    async def delivered(self, png: bytes, encoding: ImageEncoding, infotext: str | None) -> bytes:
        """The picture in its client's format, with `infotext` where other tools look for it.

        That is the text `parameters` of a PNG, and EXIF's UserComment elsewhere. PNG and WebP keep every pixel. A
        JPEG's EXIF holds less than 64 KiB, so a longer text is left out of one.
        """
        return await self._run(_delivered, png, encoding, infotext)

    async def partial(self, previews: Sequence[str], width: int, height: int, encoding: ImageEncoding) -> list[bytes]:
        """Previews, base64 of small PNG files, in the size and format of the pictures that they become."""
        return await asyncio.gather(*(self._run(_enlarged, one, width, height, encoding) for one in previews))

    async def pixels(self, png: bytes) -> "np.ndarray":
        """uint8 [height, width, 3]."""
        return await self._run(_pixels, png)

    def close(self) -> None:
        """Let the threads end."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _run(self, work: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)


def _delivered(png: bytes, encoding: ImageEncoding, infotext: str | None) -> bytes:
    if encoding.format != "png":
        return _encoded(_decoded(png), encoding, infotext)
    _opened(png, lambda image: image.verify())
    return png if infotext is None else png[:HEAD] + _text_chunk(infotext) + png[HEAD:]


def _enlarged(preview: str, width: int, height: int, encoding: ImageEncoding) -> bytes:
    from PIL import Image

    if width * height > MAX_PIXELS:
        raise InternalError(f"a picture of {width} x {height} pixels; allowed: {MAX_PIXELS} in all")
    try:
        png = base64.b64decode(preview, validate=True)
    except ValueError as error:
        raise InternalError(f"a preview that is no base64: {error}") from None
    return _encoded(_decoded(png).resize((width, height), Image.Resampling.BICUBIC), encoding, None)


def _pixels(png: bytes) -> "np.ndarray":
    import numpy as np

    return np.asarray(_decoded(png))


def _decoded(png: bytes) -> "Image.Image":
    return _opened(png, lambda image: image.convert("RGB"))


def _opened(png: bytes, use: "Callable[[Image.Image], T]") -> T:
    # Imported late, for the edge starts without it; by name, for Image.open would try every format on a broken file.
    from PIL import PngImagePlugin

    try:
        with PngImagePlugin.PngImageFile(io.BytesIO(png)) as image:
            if image.width * image.height > MAX_PIXELS:
                raise InternalError(f"a PNG of {image.width} x {image.height} pixels; allowed: {MAX_PIXELS} in all")
            return use(image)
    except (OSError, SyntaxError, ValueError, EOFError, IndexError) as error:
        raise InternalError(f"a picture that is no whole PNG: {error}") from error


def _encoded(image: "Image.Image", encoding: ImageEncoding, infotext: str | None) -> bytes:
    # Each by name, or Pillow imports dozens to find that of WebP.
    from PIL import JpegImagePlugin, PngImagePlugin, WebPImagePlugin  # noqa: F401

    options = dict(OPTIONS[encoding.format])
    if encoding.format == "jpeg":
        options["quality"] = encoding.quality
    if infotext is not None:
        exif = _exif(infotext)
        if encoding.format != "jpeg" or len(exif) <= MAX_SEGMENT:
            options["exif"] = exif
    file = io.BytesIO()
    image.save(file, **options)
    return file.getvalue()


def _text_chunk(infotext: str) -> bytes:
    """The chunk `parameters`: tEXt, or iTXt where Latin-1 does not suffice."""
    from PIL import PngImagePlugin

    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", infotext)
    file = io.BytesIO()
    for kind, data, *_ in info.chunks:
        PngImagePlugin.putchunk(file, kind, data)
    return file.getvalue()


def _exif(infotext: str) -> bytes:
    """An EXIF block whose UserComment is the text, as A1111's piexif writes it: big-endian UTF-16 after its code."""
    from PIL import Image

    exif = Image.Exif()
    exif.get_ifd(EXIF)[USER_COMMENT] = b"UNICODE\0" + infotext.encode("utf-16-be")
    return exif.tobytes()
