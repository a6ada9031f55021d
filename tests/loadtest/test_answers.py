"""What an answer makes of a request, in each dialect."""

import base64
import json

import pytest

from loadtest.answers import Answer, Unreadable, outcome, png_size
from loadtest.dialects import OPENAI, STREAM, V2
from loadtest.golden import picture
from loadtest.plan import Shot

SHOT = Shot(0, 0.0, "a", 1, False, "a red circle", 7, 20, "64x64", 2)
GOOD = [(0, picture("x", 1, "64x64")), (1, picture("x", 2, "64x64"))]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Answer(200, GOOD), "ok"),
        (Answer(200, GOOD[:1]), "wrong"),
        (Answer(200, [*GOOD, (2, GOOD[0][1])]), "duplicated"),
        (Answer(200, [GOOD[0], GOOD[0]]), "duplicated"),
        (Answer(200, [GOOD[0], (1, b"<html>")]), "wrong"),
        (Answer(200, [GOOD[0], (1, picture("x", 2, "64x65"))]), "wrong"),
        (Answer(200, GOOD, ended=False), "lost"),
        (Answer(429, code="quota_exceeded"), "refused"),
        (Answer(429, code="wake_refused"), "refused"),
        (Answer(503, code="too_slow"), "refused"),
        (Answer(503, code="engine_lost"), "failed"),
        (Answer(504, code="deadline_exceeded"), "failed"),
        (Answer(200, code="internal"), "failed"),  # in a stream that had begun
        (Answer(401), "refused"),
        (Answer(503), "failed"),  # of a gateway
        (Answer(404, code="model_not_found"), "refused"),
    ],
)  # fmt: skip
def test_an_answer_is_one_outcome(answer, expected):
    assert outcome(answer, SHOT)[0] == expected


@pytest.mark.parametrize(
    ("dialect", "body", "code", "words"),
    [
        (OPENAI, {"error": {"message": "too much", "code": "queue_full"}}, "queue_full", "too much"),
        (V2, {"error": "too much", "code": "queue_full"}, "queue_full", "too much"),
        (V2, "<h1>Bad gateway</h1>", "", "<h1>Bad gateway</h1>"),
        (OPENAI, [], "", "[]"),
    ],
)  # fmt: skip
def test_either_dialects_problem_is_read_whoever_speaks(dialect, body, code, words):
    content = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    answer = dialect.read(429, {}, content)
    assert (answer.code, answer.error) == (code, words)


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[]", b'{"data": [{"b64_json": "?"}]}', b'{"data": [{}]}', b'{"data": [1]}']
)
def test_an_answer_of_success_that_is_none_is_unreadable(body):
    with pytest.raises(Unreadable):
        OPENAI.read(200, {}, body)


def test_a_stream_is_read_in_pieces_of_any_size_and_told_from_one_that_was_cut():
    def event(seed: int) -> bytes:
        data = {"b64_json": base64.b64encode(GOOD[0][1]).decode(), "x_meta": {"seed": seed}}
        return b"event: image_generation.completed\ndata: " + json.dumps(data).encode() + b"\n\n"

    whole = b": waiting\n\n" + event(7) + event(8)
    for size in (1, 7, len(whole)):
        answer = STREAM.follow(whole[n : n + size] for n in range(0, len(whole), size))
        assert outcome(answer, SHOT) == ("ok", "")
    assert outcome(STREAM.follow([event(7), event(7)]), SHOT)[0] == "duplicated"
    assert outcome(STREAM.follow([event(7)[:-20]]), SHOT)[0] == "lost"
    error = b'event: error\ndata: {"error": {"message": "gone", "code": "predictor_lost"}}\n\n'
    assert outcome(STREAM.follow([error]), SHOT) == ("failed", "gone")


def test_requests_say_what_the_shot_says():
    body = json.loads(OPENAI.write(SHOT, "shapes").body)
    assert body == {
        "prompt": "a red circle", "model": "shapes", "n": 2, "size": "64x64", "seed": 7, "response_format": "b64_json",
        "num_inference_steps": 20,
    }  # fmt: skip
    body = json.loads(STREAM.write(SHOT, "shapes").body)
    assert body["stream"] is True
    assert "response_format" not in body
    message = V2.write(SHOT, "shapes")
    assert message.path == "/v2/models/shapes/infer"
    assert json.loads(message.body)["parameters"] == {
        "seed": 7,
        "num_images": 2,
        "steps": 20,
        "width": 64,
        "height": 64,
    }


def test_a_png_tells_its_size():
    assert png_size(picture("x", 1, "40x30")) == "40x30"
    assert png_size(b"GIF89a") is None
    assert png_size(b"") is None


def test_a_v2_answer_of_somebody_who_writes_null_for_what_is_not_there():
    """KServe's own server does."""
    output = {"name": "image", "shape": [1], "datatype": "BYTES", "parameters": None}
    output["data"] = [base64.b64encode(GOOD[0][1]).decode()]
    said = {"model_name": "shapes", "model_version": None, "id": "", "parameters": None, "outputs": [output]}
    answer = V2.read(200, {}, json.dumps(said).encode())
    assert (answer.files, answer.cold, answer.gpu_seconds) == ([(0, GOOD[0][1])], None, None)
