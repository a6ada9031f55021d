"""What is remembered of models and their cold starts."""

import msgspec
import pytest
from sqlalchemy import text

from predictor.core.request import Capabilities
from predictor.edge.stores.cold_starts import ColdStart, ColdStarts
from predictor.edge.stores.models import Models

CAPABILITIES = Capabilities(
    architecture="StableDiffusionPipeline",
    revision="4f9c",
    runtime="eager",
    device="cpu",
    dtype="float32",
    parameters=("prompt", "seed"),
    samplers=("euler",),
    default_sampler="euler",
    default_steps=20,
    max_steps=150,
    default_guidance_scale=7.5,
    max_guidance_scale=30.0,
    default_height=64,
    default_width=64,
    min_side=8,
    max_pixels=65536,
    size_multiple=8,
    max_images=8,
    max_prompt_bytes=8192,
    max_prompt_tokens=77,
    previews=True,
    sizes=((64, 64), (64, 128)),
)


async def test_the_latest_capabilities_of_each_model_are_remembered(database):
    models = Models(database)
    assert await models.get("sd") is None
    await models.put("sd", CAPABILITIES, 1.0)
    newer = msgspec.structs.replace(CAPABILITIES, revision="77aa")
    await models.put("sd", newer, 2.0)
    await models.put("xl", CAPABILITIES)
    assert await models.get("sd") == newer
    assert await models.get("xl") == CAPABILITIES


@pytest.mark.parametrize("content", ['{"architecture": "of a version with other fields"}', "[]", "cut off"])
async def test_what_this_version_cannot_read_is_as_good_as_nothing(database, content):
    models = Models(database)
    await models.put("sd", CAPABILITIES)
    async with database.write() as connection:
        await connection.execute(text("UPDATE models SET capabilities = :content"), {"content": content})
    assert await models.get("sd") is None


async def test_the_latest_cold_starts_come_first_with_their_phases_in_order(database):
    cold_starts = ColdStarts(database)
    assert await cold_starts.recent(5) == []
    phases = {"schedule": 2.0, "import": 1.5, "a load": 0.25}
    for at in (10.0, 30.0, 20.0):
        await cold_starts.add(at, at / 10, phases)
    recent = await cold_starts.recent(2)
    assert recent == [
        ColdStart(at=30.0, seconds=3.0, phases=phases),
        ColdStart(at=20.0, seconds=2.0, phases=phases),
    ]
    assert list(recent[0].phases) == ["schedule", "import", "a load"]
