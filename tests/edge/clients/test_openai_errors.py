"""Every error that openai-python knows, from the real edge: its class, and all four keys of its body."""

import time

import openai as sdk
import pytest

PROMPT = "a red circle on a blue background"
SMALL = {"num_inference_steps": 4}
HUGE = {"n": 8, "size": "256x256", "extra_body": {"num_inference_steps": 150}}  # minutes on a CPU


def refused(client, kind, **ask):
    """The error of a request, of exactly that kind and with a complete body."""
    with pytest.raises(sdk.APIStatusError) as caught:
        client.images.generate(**{"prompt": PROMPT, "size": "64x64"} | ask)
    error = caught.value
    assert type(error) is kind, error
    assert set(error.body) == {"message", "type", "param", "code"}
    assert error.request_id
    return error


@pytest.mark.parametrize(
    ("ask", "param", "allowed"),
    [
        ({"size": "100x100"}, "size", "multiples of 8"),
        ({"size": "512x512"}, "size", "at most 65536 pixels"),
        ({"n": 9}, "n", "1 to 8"),
        ({"background": "transparent"}, "background", "auto or opaque"),
        ({"style": "natural"}, "style", "vivid"),
        ({"output_format": "gif"}, "output_format", "png, webp, jpeg"),
        ({"output_compression": 50}, "output_compression", "100 with output_format png"),
        ({"quality": "xhigh"}, "quality", "auto, standard, low, medium, high, hd"),
        ({"partial_images": 2}, "partial_images", "0 without stream"),
        ({"prompt": ""}, "prompt", None),
        ({"extra_body": {"seeed": 1}}, "seeed", "did you mean seed?"),
        ({"extra_body": {"seed": -1}}, "seed", "allowed: "),
        ({"extra_body": {"num_inference_steps": 1000}}, "num_inference_steps", "1 to 150"),
        ({"extra_body": {"scheduler": "karras"}}, "scheduler", "ddim, euler"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_bad_request_names_the_parameter_as_it_was_called(openai, ask, param, allowed):
    error = refused(openai, sdk.BadRequestError, **ask)
    assert (error.param, error.code, error.type) == (param, "invalid_field", "invalid_request_error")
    assert error.body["message"].startswith(f"{param}: ")
    assert allowed is None or allowed in error.body["message"]


def test_a_wrong_key(connect, edge):
    error = refused(connect(edge, "sk-wrong", max_retries=0), sdk.AuthenticationError)
    assert (error.type, error.code, error.param) == ("authentication_error", "unauthenticated", None)


def test_a_key_that_may_only_look(connect, edge):
    reader = connect(edge, edge.key("--name", "reader", "--scopes", "read"), max_retries=0)
    error = refused(reader, sdk.PermissionDeniedError)
    assert (error.type, error.code) == ("permission_error", "forbidden")
    assert "needed: generate" in error.body["message"]


def test_another_model(openai):
    error = refused(openai, sdk.NotFoundError, model="gpt-image-9")
    assert (error.code, error.param) == ("model_not_found", "model")
    with pytest.raises(sdk.NotFoundError) as caught:
        openai.models.retrieve("gpt-image-9")
    assert caught.value.code == "model_not_found"


def test_a_spent_quota_says_when_to_come_back(connect, edge, counts):
    key = edge.key("--name", "poor", "--megapixel-steps-per-minute", "1")
    client = connect(edge, key, max_retries=0)
    spend = {"size": "128x128", "extra_body": {"num_inference_steps": 40}}
    client.images.generate(prompt=PROMPT, **spend)
    asked = counts.requests
    error = refused(client, sdk.RateLimitError, **spend)
    assert (error.type, error.code) == ("rate_limit_error", "quota_exceeded")
    assert 1 <= int(error.response.headers["retry-after"]) <= 120
    assert error.response.headers["x-should-retry"] == "true"
    assert counts.requests == asked


def test_another_request_under_one_idempotency_key(openai):
    once = {"extra_headers": {"Idempotency-Key": "picture-1"}, "extra_body": SMALL}
    first = openai.images.generate(prompt=PROMPT, size="64x64", **once)
    again = openai.images.generate(prompt=PROMPT, size="64x64", **once)
    assert again.data[0].b64_json == first.data[0].b64_json
    error = refused(openai, sdk.ConflictError, prompt="another", **once)
    assert (error.code, error.param) == ("conflict", "Idempotency-Key")


def test_what_cannot_be_done_in_time_is_refused_at_once(openai, counts):
    openai.images.generate(prompt=PROMPT, size="64x64", extra_body=SMALL)  # teaches the edge the predictor's pace
    asked = counts.requests
    error = refused(openai, sdk.InternalServerError, timeout=5.0, **HUGE)
    assert (error.status_code, error.type, error.code) == (503, "server_error", "too_slow")
    assert "the client waits 5 s" in error.body["message"]
    assert 1 <= int(error.response.headers["retry-after"]) <= 120
    assert counts.requests == asked


def test_a_stream_that_fails_on_the_way_raises(start_edge, edge, connect, counts):
    """An edge that has yet to learn how slow this predictor is lets the request begin."""
    hopeful = start_edge(edge.predictor_url, auth="none", cold_start_seconds=0.1)
    ask = {"prompt": PROMPT, "stream": True, **HUGE, "n": 2}
    deadline = {"X-Request-Deadline": str(time.time() + 4.0)}
    stream = connect(hopeful, "any", max_retries=0).images.generate(**ask, extra_headers=deadline)
    with stream, pytest.raises(sdk.APIError) as caught:
        list(stream)
    assert set(caught.value.body) == {"message", "type", "param", "code"}
    assert caught.value.code == "deadline_exceeded"


def test_a_deadline_during_a_start_says_how_far_the_start_was(start_edge, connect):
    hopeful = start_edge("http://127.0.0.1:9", auth="none", cold_start_seconds=0.1)
    deadline = {"X-Request-Deadline": str(time.time() + 2.5)}
    error = refused(connect(hopeful, "any", max_retries=0), sdk.InternalServerError, extra_headers=deadline)
    assert error.code == "deadline_exceeded"
    assert error.body["message"].endswith("before the client's deadline; the start was seen last: unreachable")


def test_a_forbidden_prompt(start_edge, connect, tmp_path):
    (tmp_path / "words").write_text("forbidden\n")
    strict = start_edge("http://127.0.0.1:9", auth="none", blocklist=tmp_path / "words")
    error = refused(connect(strict, "any", max_retries=0), sdk.BadRequestError, prompt="a forbidden circle")
    assert (error.type, error.code) == ("image_generation_user_error", "moderation_blocked")
    assert "forbidden circle" not in error.body["message"]
