import base64
import io
import struct
import zlib
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from predictor.core.problems import InternalError
from predictor.core.request import ImageEncoding
from predictor.edge.pictures import Pictures

PIXELS = np.random.default_rng(0).integers(0, 256, (24, 40, 3), np.uint8)
TEXTS = ["a cat\nSteps: 20", "eine Käse-Uhr, größer", "猫 🐈\nNegative prompt: 犬"]


def png(pixels: np.ndarray = PIXELS) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def bomb() -> bytes:
    """A PNG of 100000 x 100000 pixels, by its own account."""
    chunks = b"\x89PNG\r\n\x1a\n"
    header = struct.pack(">IIBBBBB", 100000, 100000, 8, 2, 0, 0, 0)
    for kind, data in ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")):
        chunks += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return chunks


def comment(image: Image.Image) -> str:
    raw = image.getexif().get_ifd(0x8769)[0x9286]
    assert raw.startswith(b"UNICODE\0")
    return raw[8:].decode("utf-16-be")


@pytest.fixture
def pictures() -> Iterator[Pictures]:
    pictures = Pictures(threads=2)
    yield pictures
    pictures.close()


@pytest.mark.parametrize("text", TEXTS)
async def test_a_png_has_its_parameters_and_every_pixel(pictures, text):
    content = await pictures.delivered(png(), ImageEncoding(), text)
    with Image.open(io.BytesIO(content)) as image:
        assert image.text == {"parameters": text}
        assert np.array_equal(np.asarray(image), PIXELS)
    assert (b"iTXt" in content) == (not text.isascii() and "猫" in text)


async def test_a_png_without_a_text_is_the_stored_file(pictures):
    assert await pictures.delivered(png(), ImageEncoding(), None) == png()


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("form", ["webp", "jpeg"])
async def test_webp_and_jpeg_have_a_comment(pictures, form, text):
    with Image.open(io.BytesIO(await pictures.delivered(png(), ImageEncoding(form), text))) as image:
        assert image.format == form.upper()
        assert comment(image) == text


async def test_webp_keeps_every_pixel(pictures):
    with Image.open(io.BytesIO(await pictures.delivered(png(), ImageEncoding("webp"), None))) as image:
        assert np.array_equal(np.asarray(image), PIXELS)
        assert not image.getexif()


async def test_jpeg_quality_is_the_callers(pictures):
    sizes = [len(await pictures.delivered(png(), ImageEncoding("jpeg", quality), None)) for quality in (1, 50, 100)]
    assert sizes == sorted(set(sizes))


async def test_a_text_that_no_jpeg_can_hold_is_left_out_of_it(pictures):
    long = "x" * 40000
    with Image.open(io.BytesIO(await pictures.delivered(png(), ImageEncoding("jpeg"), long))) as image:
        assert not image.getexif()
    with Image.open(io.BytesIO(await pictures.delivered(png(), ImageEncoding("webp"), long))) as image:
        assert comment(image) == long


@pytest.mark.parametrize("form", ["png", "webp", "jpeg"])
async def test_a_preview_grows_to_the_pictures_size(pictures, form):
    preview = base64.b64encode(png(np.full((4, 8, 3), 200, np.uint8))).decode()
    files = await pictures.partial([preview, preview], 64, 32, ImageEncoding(form))
    assert len(files) == 2
    with Image.open(io.BytesIO(files[1])) as image:
        assert (image.format, image.size) == (form.upper(), (64, 32))
        assert np.abs(np.asarray(image).astype(int) - 200).max() <= 2


async def test_pixels_are_those_of_the_file(pictures):
    pixels = await pictures.pixels(png())
    assert pixels.dtype == np.uint8
    assert np.array_equal(pixels, PIXELS)


BROKEN = {
    "empty": b"",
    "text": b"GIF89a no picture",
    "cut short": png()[: len(png()) // 2],
    "flipped bit": png()[:60] + bytes([png()[60] ^ 1]) + png()[61:],
    "bomb": bomb(),
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("form", ["png", "jpeg"])
async def test_what_is_no_whole_png_is_delivered_as_nothing(pictures, content, form):
    with pytest.raises(InternalError, match="PNG"):
        await pictures.delivered(content, ImageEncoding(form), "a cat")


async def test_a_png_that_lacks_only_its_end_is_not_passed_on(pictures):
    with pytest.raises(InternalError, match="PNG"):
        await pictures.delivered(png()[:-12], ImageEncoding(), "a cat")


@pytest.mark.parametrize("preview", ["no base64!", base64.b64encode(bomb()).decode()])
async def test_a_preview_that_is_none_is_refused(pictures, preview):
    with pytest.raises(InternalError):
        await pictures.partial([preview], 64, 32, ImageEncoding())


async def test_a_preview_does_not_grow_without_end(pictures):
    with pytest.raises(InternalError, match="100000 x 100000"):
        await pictures.partial([base64.b64encode(png()).decode()], 100000, 100000, ImageEncoding())
