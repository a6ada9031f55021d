"""openai-python, unmodified, draws pictures: the real edge in front of the real predictor with the demo model."""

import base64
import time

import httpx
import numpy as np
import openai as sdk
import pytest
from openai.types import ImageGenCompletedEvent, ImageGenPartialImageEvent

PROMPT = "a red circle on a blue background"
SMALL = {"num_inference_steps": 4}  # what the API has no words for goes into extra_body


def test_a_picture(openai, picture):
    answer = openai.images.generate(model="shapes", prompt=PROMPT)
    (image,) = answer.data
    assert (picture(image.b64_json).format, picture(image.b64_json).size) == ("PNG", (128, 128))
    assert image.url is None
    assert abs(answer.created - time.time()) < 600
    assert answer.background == "opaque"
    assert answer.output_format == "png"
    assert answer.usage.input_tokens == answer.usage.total_tokens > 0
    assert 0 <= image.x_meta["seed"] < 2**32


def test_a_link_works_without_a_key_and_leads_to_the_same_bytes(openai):
    ask = {"prompt": PROMPT, "size": "64x64", "extra_body": SMALL | {"seed": 11}}
    link = openai.images.generate(**ask, response_format="url").data[0].url
    reply = httpx.get(link)
    assert (reply.status_code, reply.headers["content-type"]) == (200, "image/png")
    assert reply.content == base64.b64decode(openai.images.generate(**ask).data[0].b64_json)


def test_several_pictures_have_seeds_in_a_row(openai, pixels):
    ask = {"prompt": "a green square", "size": "64x64"}
    answer = openai.images.generate(**ask, n=2, extra_body=SMALL | {"seed": 100})
    assert [image.x_meta["seed"] for image in answer.data] == [100, 101]
    first, second = (pixels(image.b64_json) for image in answer.data)
    assert not np.array_equal(first, second)
    alone = pixels(openai.images.generate(**ask, extra_body=SMALL | {"seed": 101}).data[0].b64_json)
    assert np.abs(second.astype(int) - alone.astype(int)).max() <= 1  # batched and alone differ by rounding


def test_the_same_seed_again_is_the_same_file_for_nothing(openai, counts):
    ask = {"prompt": "a yellow circle", "size": "64x64", "extra_body": SMALL | {"seed": 12}}
    first = openai.images.with_raw_response.generate(**ask)
    asked = counts.requests
    again = openai.images.with_raw_response.generate(**ask)
    assert counts.requests == asked
    assert [raw.headers["x-cache"] for raw in (first, again)] == ["miss", "hit"]
    assert first.parse().data[0].b64_json == again.parse().data[0].b64_json
    assert again.parse().x_sdzero["gpu_seconds"] == 0 < first.parse().x_sdzero["gpu_seconds"]
    assert int(again.headers["age"]) >= 0
    assert again.headers["etag"] == first.headers["etag"] == f'"{first.parse().x_sdzero["fingerprint"]}"'
    assert "server-timing" not in again.headers


def test_without_a_seed_each_picture_is_another(openai):
    ask = {"prompt": PROMPT, "size": "64x64", "extra_body": SMALL}
    one, other = (openai.images.with_raw_response.generate(**ask) for _ in range(2))
    assert [one.headers["x-cache"], other.headers["x-cache"]] == ["miss", "miss"]
    seeds = [raw.parse().data[0].x_meta["seed"] for raw in (one, other)]
    assert seeds[0] != seeds[1]
    told = openai.images.generate(**ask | {"extra_body": SMALL | {"seed": seeds[0]}})
    assert told.data[0].b64_json == one.parse().data[0].b64_json


def test_extensions_come_back_as_they_are_in_force(openai, picture):
    extensions = {
        "seed": 3,
        "negative_prompt": "green",
        "num_inference_steps": 3,
        "guidance_scale": 4.5,
        "scheduler": "dpmpp_2m",
        "truncate_prompt": True,
    }
    answer = openai.images.generate(prompt=PROMPT, size="96x64", extra_body=extensions)
    meta = {name: value for name, value in extensions.items() if name != "scheduler"}
    assert answer.data[0].x_meta == meta | {"sampler": "dpmpp_2m", "size": "96x64"}
    assert picture(answer.data[0].b64_json).size == (96, 64)


@pytest.mark.parametrize(("quality", "steps"), [("low", 12), ("medium", 25), ("standard", 25), ("hd", 50)])
def test_a_quality_is_a_number_of_steps(openai, quality, steps):
    answer = openai.images.generate(prompt=PROMPT, size="64x64", quality=quality, extra_body={"seed": 4})
    assert answer.data[0].x_meta["num_inference_steps"] == steps


@pytest.mark.parametrize(("format", "more"), [("webp", {}), ("jpeg", {"output_compression": 60}), ("png", {})])
def test_formats(openai, picture, format, more):
    ask = {"prompt": PROMPT, "size": "64x64", "output_format": format, "extra_body": SMALL | {"seed": 5}}
    answer = openai.images.generate(**ask, **more)
    assert answer.output_format == format
    assert picture(answer.data[0].b64_json).format == format.upper()
    link = httpx.get(openai.images.generate(**ask, **more, response_format="url").data[0].url)
    assert (link.headers["content-type"], picture(link.content).format) == (f"image/{format}", format.upper())


def test_headers_tell_what_happened(openai):
    raw = openai.images.with_raw_response.generate(prompt=PROMPT, size="64x64", extra_body=SMALL)
    assert raw.headers["content-type"] == "application/json"
    assert raw.headers["x-sdzero-job"] == raw.parse().x_sdzero["job"]
    assert raw.headers["x-sdzero-cold-start"] in ("true", "false")
    assert "total;dur=" in raw.headers["server-timing"]
    assert raw.request_id == raw.parse()._request_id
    assert raw.request_id


def test_models(openai):
    (model,) = openai.models.list().data
    assert (model.id, model.object, model.owned_by) == ("shapes", "model", "sdzero")
    found = openai.models.retrieve("shapes")
    assert (found.id, found.created) == (model.id, model.created)
    assert found.x_capabilities["default_steps"] == 25


def test_a_stream_shows_the_picture_as_it_grows(openai, picture):
    ask = {"prompt": "a blue square on white", "extra_body": {"seed": 6}}
    with openai.images.generate(**ask, stream=True, partial_images=2) as stream:
        *partial, last = list(stream)
    assert all(isinstance(event, ImageGenPartialImageEvent) for event in partial)
    assert [event.partial_image_index for event in partial] == [0, 1]
    assert isinstance(last, ImageGenCompletedEvent)
    assert last.type == "image_generation.completed"
    assert {(event.size, event.output_format, event.background) for event in (*partial, last)} == {
        ("128x128", "png", "opaque")
    }
    shown = [picture(event.b64_json) for event in (*partial, last)]
    assert [(image.format, image.size) for image in shown] == [("PNG", (128, 128))] * 3
    assert len({image.convert("RGB").tobytes() for image in shown}) == 3
    assert last.usage.total_tokens == last.usage.input_tokens > 0
    assert last.x_meta["seed"] == 6
    assert last.b64_json == openai.images.generate(**ask).data[0].b64_json


def test_a_stream_without_partial_images_is_one_event_for_each_picture(openai):
    with openai.images.generate(prompt=PROMPT, n=2, size="64x64", stream=True, extra_body={"seed": 8}) as stream:
        events = list(stream)
    assert [type(event) for event in events] == [ImageGenCompletedEvent] * 2
    assert [event.x_meta["seed"] for event in events] == [8, 9]


async def test_the_asynchronous_client(async_openai, picture):
    assert [model.id async for model in async_openai.models.list()] == ["shapes"]
    ask = {"prompt": "a white circle", "size": "64x64", "extra_body": SMALL | {"seed": 9}}
    answer = await async_openai.images.generate(**ask)
    assert picture(answer.data[0].b64_json).size == (64, 64)
    events = [event async for event in await async_openai.images.generate(**ask, stream=True)]
    assert [event.b64_json for event in events] == [answer.data[0].b64_json]
    with pytest.raises(sdk.BadRequestError):
        await async_openai.images.generate(prompt=PROMPT, size="65x64")
