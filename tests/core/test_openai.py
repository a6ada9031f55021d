import json

import httpx
import msgspec
import openai as sdk
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types import ImageGenCompletedEvent, ImageGenPartialImageEvent, ImagesResponse

from predictor.asgi.events import encoded
from predictor.core import openai
from predictor.core.jobs import Generation, Job, Result, StoredImage
from predictor.core.problems import (
    PROBLEMS,
    InvalidField,
    InvalidRequest,
    ModerationBlocked,
    NotFound,
    Problem,
    QuotaExceeded,
)
from predictor.core.request import ANY_MODEL, resolve

NAMES = ("sd", "gpt-image-1")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)
FIELDS = (*openai.PLAIN, *openai.ALWAYS, *openai.OF_CONNECTIONS, *openai.OF_JOBS)


@pytest.fixture
def decode():
    def decode(job: bool = False, **given: object) -> openai.Wanted:
        return openai.decode(json.dumps({"prompt": "a cat", **given}).encode(), NAMES, job=job)

    return decode


@pytest.fixture
def fields(decode, capabilities):
    return lambda of=capabilities, **given: openai.fields(decode(**given), of)


@pytest.fixture
def refused(decode, capabilities):
    def refused(job: bool = False, **given: object) -> tuple[str | None, str]:
        with pytest.raises(Problem) as caught:
            openai.fields(decode(job, **given), capabilities)
        return caught.value.field, caught.value.message

    return refused


@pytest.fixture
def done(capabilities) -> Job:
    fields = {"prompt": "a cat", "num_images": 2, "seed": 7, "guidance_scale": 7.5, "image_format": "webp"}
    request, encoding = resolve(fields, capabilities, 0)
    result = Result(
        images=(StoredImage("a.png", 7, 10), StoredImage("b.png", 8, 10)),
        revision="3f2a",
        prompt_tokens=4,
        negative_prompt_tokens=2,
        gpu_seconds=0.5,
        timing={"queue": 0.001, "denoise": 0.25},
        cold_start=True,
        waited=2.0,
    )
    generation = Generation(
        id="gen_1",
        tenant="t",
        request=request,
        revision="3f2a",
        fingerprint="f00",
        cacheable=True,
        state="done",
        created=1700000000.5,
        deadline=1700000600.0,
        finished=1700000003.5,
        result=result,
    )
    return Job(
        id="job_1",
        kind="sync",
        tenant="t",
        key_id="k",
        request_id="r",
        state="done",
        created=1700000000.5,
        generation=generation,
        encoding=encoding,
    )


def test_only_the_prompt_is_needed(decode):
    assert decode() == openai.Wanted(given={"prompt": "a cat"})


def test_null_means_absent(decode):
    assert decode(**dict.fromkeys((*openai.ALWAYS, *openai.OF_CONNECTIONS, "n", "seed"))) == decode()


def test_every_field_arrives_under_our_name(decode, capabilities):
    wanted = decode(
        model="gpt-image-1",
        n=2,
        size="256x128",
        num_inference_steps=9,
        seed=7,
        negative_prompt="dogs",
        guidance_scale=3,
        scheduler="euler",
        truncate_prompt=True,
        output_format="jpeg",
        output_compression=40,
        response_format="url",
        user="u1",
        moderation="low",
        background="opaque",
        style="vivid",
    )
    request, encoding = resolve(openai.fields(wanted, capabilities), capabilities, 0)
    assert (request.width, request.height, request.num_images, request.steps) == (256, 128, 2, 9)
    assert (request.sampler, request.seed, request.negative_prompt) == ("euler", 7, "dogs")
    assert (encoding.format, encoding.quality) == ("jpeg", 40)
    assert (wanted.response_format, wanted.user, wanted.moderation) == ("url", "u1", "low")


@pytest.mark.parametrize(
    ("quality", "steps"),
    [("auto", 20), ("standard", 20), ("medium", 20), ("low", 10), ("high", 40), ("hd", 40)],
)
def test_quality_is_a_number_of_steps(fields, capabilities, quality, steps):
    assert resolve(fields(quality=quality), capabilities, 0)[0].steps == steps


def test_low_quality_has_one_step_at_least_and_high_no_more_than_the_model(fields, capabilities):
    few = msgspec.structs.replace(capabilities, default_steps=1, max_steps=1)
    assert fields(few, quality="low")["steps"] == 1
    with pytest.raises(InvalidField, match=r"^quality: got high, which is 2 steps of the 1 that this model may do"):
        fields(few, quality="high")


@pytest.mark.parametrize(
    "size", ["100x128", "128", "0128x128", "1024x1024", "128X128", "-8x64", "8x8", 128, "", "１２８x128"]
)
def test_a_size_that_cannot_be_is_refused_never_clamped(refused, size):
    field, message = refused(size=size)
    assert field == "size"
    assert repr(size) in message
    assert "multiples of 8 from 64, with at most 262144 pixels" in message


def test_compiled_sizes_are_named_as_the_client_writes_them(fields, capabilities):
    compiled = msgspec.structs.replace(capabilities, sizes=((128, 256),))
    assert fields(compiled, size="256x128") == {"prompt": "a cat", "height": 128, "width": 256}
    with pytest.raises(InvalidField, match=r"allowed: auto, 256x128$"):
        fields(compiled, size="128x256")


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"quality": "best"}, "quality"),
        ({"quality": "low", "num_inference_steps": 5}, "quality"),
        ({"output_format": "gif"}, "output_format"),
        ({"output_compression": 50}, "output_compression"),
        ({"output_format": "webp", "output_compression": 99}, "output_compression"),
        ({"output_format": "jpeg", "output_compression": 101}, "output_compression"),
        ({"output_format": "jpeg", "output_compression": "50"}, "output_compression"),
        ({"background": "transparent"}, "background"),
        ({"style": "natural"}, "style"),
        ({"moderation": "off"}, "moderation"),
        ({"response_format": "png"}, "response_format"),
        ({"response_format": "url", "stream": True}, "response_format"),
        ({"stream": "true"}, "stream"),
        ({"partial_images": 1}, "partial_images"),
        ({"partial_images": 4, "stream": True}, "partial_images"),
        ({"partial_images": True, "stream": True}, "partial_images"),
        ({"user": "u" * 513}, "user"),
        ({"user": 5}, "user"),
        ({"safety_identifier": []}, "safety_identifier"),
        ({"model": "dall-e-9"}, "model"),
        ({"model": 1}, "model"),
        ({"scheduler": "nope"}, "scheduler"),
        ({"scheduler": "euler", "sampler": "euler"}, "scheduler"),
        ({"webhook_url": "http://a"}, "webhook_url"),
    ],
)
def test_what_cannot_be_done_is_refused_by_the_clients_name_for_it(refused, given, field):
    found, message = refused(**given)
    assert found == field
    assert message.startswith(f"{field}: ")
    assert "allowed: " in message


def test_an_unknown_field_is_refused_with_the_one_that_was_meant(refused):
    field, message = refused(negativ_prompt="dogs")
    assert field == "negativ_prompt"
    assert "did you mean negative_prompt?" in message


def test_a_field_that_the_model_does_not_take_is_unknown(fields, capabilities):
    plain = msgspec.structs.replace(capabilities, parameters=("prompt", "seed"))
    with pytest.raises(InvalidField, match=r"negative_prompt: no such field; allowed: prompt, seed$"):
        fields(plain, negative_prompt="b")


def test_what_no_model_can_do_is_refused_before_anybody_has_told_what_this_one_can(fields):
    assert fields(ANY_MODEL, scheduler="own", quality="hd", size="24x40")["sampler"] == "own"
    for asked in ({"size": "0x8"}, {"size": "9999x9999"}, {"quality": "best"}, {"output_format": "gif"}):
        with pytest.raises(InvalidField, match=f"^{next(iter(asked))}: "):
            fields(ANY_MODEL, **asked)


def test_another_model_is_not_found(refused, decode):
    with pytest.raises(NotFound):
        decode(model="dall-e-3")
    assert "allowed: sd, gpt-image-1" in refused(model="dall-e-3")[1]


def test_the_newer_identifier_goes_before_the_older(decode):
    assert decode(user="old", safety_identifier="new").user == "new"
    assert decode(user="old", safety_identifier="").user == "old"


def test_jpeg_has_openais_default_quality_and_libjpegs_least(fields):
    assert fields(output_format="jpeg")["image_quality"] == 100
    assert fields(output_format="jpeg", output_compression=0)["image_quality"] == 1
    assert fields(output_format="webp", output_compression=100)["image_format"] == "webp"


def test_a_job_has_a_webhook_and_no_connection(decode, refused):
    wanted = decode(job=True, webhook_url="https://a.example/hook", previews=True)
    assert (wanted.webhook_url, wanted.previews) == ("https://a.example/hook", True)
    for name, value in (("stream", True), ("partial_images", 0), ("response_format", "url")):
        assert refused(job=True, **{name: value})[0] == name


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'"a"', b'{"prompt":"\\ud800"}', b'{"user":"\\udc00"}', b"\xff"])
def test_bytes_that_are_no_object_are_refused(body):
    with pytest.raises(InvalidRequest, match=r"^body: "):
        openai.decode(body, NAMES)


def test_a_name_that_comes_twice_is_refused():
    with pytest.raises(InvalidField, match="seed: got this name twice"):
        openai.decode(b'{"prompt":"a","seed":1,"seed":2}', NAMES)


@given(body=st.dictionaries(st.sampled_from(FIELDS) | st.text(), JSON, max_size=6), job=st.booleans())
def test_whatever_comes_ends_in_a_request_or_in_a_problem_with_the_clients_name(capabilities, body, job):
    try:
        wanted = openai.decode(json.dumps(body).encode(), NAMES, job=job)
        resolve(openai.fields(wanted, capabilities), capabilities, 0)
    except InvalidField as problem:
        told = openai.renamed(problem)
        assert told.field not in {*openai.THEIRS} - {*body}
        assert told.message.startswith(f"{told.field}:")
    except (InvalidRequest, NotFound):
        pass


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_images": 9}, "n: got 9; allowed: 1 to 8"),
        ({"steps": "4"}, "num_inference_steps: got '4'; allowed: a whole number"),
        ({"height": 4}, "size: height got 4; allowed: multiples of 8 from 64 to 4096"),
        ({"height": 1024, "width": 1024}, "size: got 1024 x 1024; allowed: at most 262144 pixels in all"),
        ({"seed": -1}, "seed: got -1; allowed: 0 to 9007199254739967"),
    ],
)
def test_later_problems_speak_the_clients_language(capabilities, fields, message):
    with pytest.raises(InvalidField) as caught:
        resolve({"prompt": "a", **fields}, capabilities, 0)
    problem = openai.renamed(caught.value)
    assert problem.message == message
    assert problem.field == message.partition(":")[0]


@pytest.mark.parametrize("kind", PROBLEMS.values())
def test_an_error_has_all_four_keys(kind):
    status, body = openai.error(kind("field: wrong", field="field"))
    assert status == kind.http
    assert body["error"] == {
        "message": "field: wrong",
        "type": body["error"]["type"],
        "param": "field",
        "code": kind.code,
    }
    assert (body["error"]["type"] == "server_error") == (status >= 500)


@pytest.mark.parametrize(
    ("problem", "type", "code"),
    [
        (NotFound("model: …", field="model"), "invalid_request_error", "model_not_found"),
        (NotFound("no such job"), "invalid_request_error", "not_found"),
        (ModerationBlocked("prompt: …"), "image_generation_user_error", "moderation_blocked"),
        (QuotaExceeded("…"), "rate_limit_error", "quota_exceeded"),
    ],
)
def test_errors_have_openais_types_and_codes(problem, type, code):
    error = openai.error(problem)[1]["error"]
    assert (error["type"], error["code"]) == (type, code)


def test_an_answer_is_what_openais_client_declares(done):
    body = openai.answer(done, [{"b64_json": "QQ=="}, {"b64_json": "Qg=="}])
    response = ImagesResponse.model_validate(msgspec.to_builtins(body), strict=True)
    assert response.data is not None
    assert [image.b64_json for image in response.data] == ["QQ==", "Qg=="]
    assert [image["x_meta"]["seed"] for image in body["data"]] == [7, 8]
    assert body["data"][0]["x_meta"]["guidance_scale"] == 7.5
    assert response.usage is not None
    assert (response.usage.input_tokens, response.usage.output_tokens, response.usage.total_tokens) == (6, 0, 6)
    assert (response.created, response.output_format, response.background) == (1700000003, "webp", "opaque")
    assert "size" not in body  # 128x128 is none that older clients accept
    assert "quality" not in body
    assert body["x_sdzero"]["gpu_seconds"] == 0.5


def test_a_size_that_older_clients_know_is_told(done):
    request = msgspec.structs.replace(done.generation.request, width=1536, height=1024)
    generation = msgspec.structs.replace(done.generation, request=request)
    body = openai.answer(msgspec.structs.replace(done, generation=generation), [{"url": "u"}] * 2)
    assert body["size"] == "1536x1024"


@pytest.mark.parametrize("how", ["cached", "joined"])
def test_what_another_paid_for_costs_nothing(done, how):
    facts = openai.answer(msgspec.structs.replace(done, **{how: True}), [{"url": "u"}] * 2)["x_sdzero"]
    assert (facts["gpu_seconds"], facts["megapixel_steps"], facts[how]) == (0.0, 0.0, True)
    assert facts["cold_start"] == (how == "joined")


def test_events_are_what_openais_client_declares(done):
    ImageGenPartialImageEvent.model_validate(openai.partial_event(done, "QQ==", 0), strict=True)
    last = openai.completed_event(done, "QQ==", 1)
    ImageGenCompletedEvent.model_validate(last, strict=True)
    assert (last["x_meta"]["seed"], last["size"]) == (8, "128x128")


def client(status: int, content: bytes, type: str = "application/json") -> sdk.OpenAI:
    def handle(request: httpx.Request) -> httpx.Response:
        return httpx.Response(status, content=content, headers={"content-type": type})

    return sdk.OpenAI(
        api_key="k",
        base_url="http://edge/v1",
        max_retries=0,
        http_client=httpx.Client(transport=httpx.MockTransport(handle)),
    )


def test_openais_client_reads_the_stream_and_the_error_at_its_end(done):
    partial, last = openai.partial_event(done, "QQ==", 0), openai.completed_event(done, "Qg==", 0)
    stream = (
        b": waiting\n\n"
        + encoded(partial["type"], partial)
        + encoded(last["type"], last)
        + encoded("error", openai.error(QuotaExceeded("spent"))[1])
    )
    with client(200, stream, "text/event-stream") as server:
        events = iter(server.images.generate(prompt="a", stream=True, partial_images=1))
        assert isinstance(next(events), ImageGenPartialImageEvent)
        completed = next(events)
        assert isinstance(completed, ImageGenCompletedEvent)
        assert completed.b64_json == "Qg=="
        with pytest.raises(sdk.APIError, match="spent") as caught:
            next(events)
    assert caught.value.code == "quota_exceeded"


@pytest.mark.parametrize(
    ("problem", "raised"),
    [
        (InvalidField.of("size", "1x1", "auto"), sdk.BadRequestError),
        (NotFound("model: …", field="model"), sdk.NotFoundError),
        (QuotaExceeded("spent"), sdk.RateLimitError),
    ],
)
def test_openais_client_raises_what_it_should(problem, raised):
    status, body = openai.error(problem)
    with client(status, msgspec.json.encode(body)) as server, pytest.raises(raised) as caught:
        server.images.generate(prompt="a")
    error = body["error"]
    assert (caught.value.param, caught.value.code, caught.value.type) == (error["param"], error["code"], error["type"])


def test_openais_client_lists_the_models():
    with client(200, msgspec.json.encode(openai.models(NAMES, 1700000000))) as server:
        assert [(model.id, model.created) for model in server.models.list()] == [(name, 1700000000) for name in NAMES]


def test_timing_begins_with_the_wake(done):
    assert openai.timing(done.generation.result) == "wake;dur=2000.0, queue;dur=1.0, denoise;dur=250.0"
