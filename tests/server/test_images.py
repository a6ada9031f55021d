import asyncio
import base64
import io

import numpy as np
import pytest
from PIL import Image

from predictor.core.request import ImageEncoding
from predictor.server.images import Packer, packed


@pytest.fixture
def pixels():
    ramp = np.arange(96 * 64 * 3, dtype=np.uint32)
    return (ramp * 2654435761 >> 11).astype(np.uint8).reshape(96, 64, 3)


def decoded(text):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))


@pytest.mark.parametrize("form", ["png", "webp"])
def test_png_and_webp_lose_nothing(pixels, form):
    np.testing.assert_array_equal(decoded(packed(pixels, ImageEncoding(form))), pixels)


def test_read_only_pixels_of_a_received_frame_can_be_packed(pixels):
    pixels.setflags(write=False)
    np.testing.assert_array_equal(decoded(packed(pixels, ImageEncoding())), pixels)


def test_a_higher_jpeg_quality_is_closer_and_larger(pixels):
    low, high = (packed(pixels, ImageEncoding("jpeg", quality)) for quality in (10, 95))
    error = [np.abs(decoded(file).astype(int) - pixels).mean() for file in (low, high)]
    assert error[1] < error[0]
    assert len(high) > len(low)


async def test_pictures_keep_their_order(pixels):
    packer = Packer(threads=2)
    several = [pixels, 255 - pixels, pixels[:8]]
    files = await asyncio.wait_for(packer.pack(several, ImageEncoding()), 10)
    packer.close()
    for file, one in zip(files, several, strict=True):
        np.testing.assert_array_equal(decoded(file), one)
