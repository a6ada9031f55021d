"""The edge's client of the predictor, against servers that are none, break off, or talk nonsense."""

import json

import httpx
import msgspec
import pytest

from predictor.core.problems import DeadlineExceeded, PredictorLost
from predictor.edge.predictor import Accepted, Pictures, Predictor, Waking
from tests.edge import predictors
from tests.edge.predictors import ACCEPTED, BAD_GATEWAY, SMALL, STREAM, ask, done, heard, liar
from tests.processes import free_port

connect = predictors.connect


async def test_nobody_there_until_time_runs_out(connect):
    predictor = connect(f"http://127.0.0.1:{free_port()}")
    updates = ask(predictor, seconds=1.0)
    assert [await anext(updates), await anext(updates)] == [Waking("unreachable")] * 2
    with pytest.raises(DeadlineExceeded, match="seen last: unreachable"):
        await heard(updates)
    assert 2 <= predictor.requests <= 5, "tried again, and not in a hurry"


async def test_nothing_is_sent_that_nobody_asked_for(connect):
    async with liar(STREAM + ACCEPTED + done()) as (url, came):
        predictor = connect(url)
        assert (predictor.requests, came) == (0, [])
        updates = ask(predictor)
        assert (predictor.requests, came) == (0, []), "not before somebody listens"
        assert isinstance((await heard(updates))[-1], Pictures)
    assert predictor.requests == len(came) == 1


async def test_every_field_goes_out_and_previews_only_when_wanted(connect):
    async with liar(STREAM + ACCEPTED + done()) as (url, came):
        predictor = connect(f"{url}/below/", "my.model")
        await heard(ask(predictor))
        await heard(predictor.generate("gen_2", SMALL, seconds=9, previews=True, parameters=("prompt", "seed")))
    (head, _, body), (_, _, second) = (sent.partition(b"\r\n\r\n") for sent in came)
    assert head.startswith(b"POST /below/v2/models/my.model/generate_stream HTTP/1.1\r\n")
    assert b"\r\nx-request-id: gen_1" in head.lower()
    assert json.loads(body) == msgspec.structs.asdict(SMALL) | {"image_format": "png"}
    assert json.loads(second) == {"prompt": SMALL.prompt, "seed": 7, "previews": True}


async def test_what_a_proxy_says_while_nobody_is_behind_it_is_waited_out(connect):
    unavailable = BAD_GATEWAY.replace(b"502", b"503")
    draining = b'HTTP/1.1 503 x\r\ncontent-length: 34\r\n\r\n{"error":"bye","code":"draining"}\n\n'
    async with liar(BAD_GATEWAY, unavailable, b"", draining, STREAM + ACCEPTED + done()) as (url, came):
        *waking, accepted, pictures = await heard(ask(connect(url)))
    phases = ["starting", "starting", "unreachable", "starting"]
    assert waking == [Waking(phase) for phase in phases]
    assert accepted == Accepted(3, 0)
    assert pictures.timing == {"queue": 0.001, "total": 2.5}
    assert pictures.cold_phases == {"engine-torch": 3.0}
    assert (pictures.cold_start, pictures.gpu_seconds, pictures.files) == (True, 1.0, [b"\x89PNG\r\n\x1a\n"])
    assert len(came) == 5


@pytest.mark.parametrize(
    "broken",
    [
        STREAM,
        STREAM + ACCEPTED,
        STREAM + ACCEPTED + done()[:-1],
        STREAM + ACCEPTED + b'event: done\ndata: {"image": []}\n\n',
        STREAM + ACCEPTED + b"event: progress\ndata: \xff\n\n",
        STREAM + ACCEPTED + done(image=["%%%"]),
        STREAM + ACCEPTED + done(image=[]),
        STREAM + ACCEPTED + done(seed=[7, 8]),
        STREAM + b'event: error\ndata: {"error":"?","code":"from_the_future"}\n\n',
        STREAM.replace(b"connection: close", b"transfer-encoding: chunked") + b"4\r\nevent",
        b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n",
    ],
)
async def test_a_broken_answer_means_that_the_predictor_is_lost(connect, broken):
    async with liar(broken) as (url, came):
        with pytest.raises(PredictorLost):
            await heard(ask(connect(url)))
    assert len(came) == 1


async def test_an_event_without_end_is_not_kept(connect):
    async with liar(STREAM + ACCEPTED + b"data: " + bytes(64 * 2**20)) as (url, _):
        with pytest.raises(PredictorLost, match="more than 67108864 bytes"):
            await heard(ask(connect(url)))


async def test_a_problem_without_end_is_not_read(connect):
    async with liar(b"HTTP/1.1 500 x\r\n\r\n" + bytes(2**25)) as (url, _):
        with pytest.raises(PredictorLost, match="answered 500 without one of its problems"):
            await heard(ask(connect(url)))


async def test_silence_is_waited_for_no_longer_than_allowed(connect):
    async with liar(None) as (url, came):
        with pytest.raises(DeadlineExceeded):
            await heard(ask(connect(url), seconds=0.5))
    assert len(came) == 1


async def test_an_answer_is_whole_before_the_stream_has_ended(connect):
    """A server that keeps the stream open after `done` costs a moment, not the pictures."""
    head = STREAM.replace(b"connection: close", b"content-length: 100000")
    async with liar(head + ACCEPTED + done()) as (url, _):
        assert isinstance((await heard(ask(connect(url))))[-1], Pictures)


async def test_comments_and_strange_events_are_passed_over(connect):
    async with liar(STREAM + b": hello\n\n" + ACCEPTED + b'event: news\ndata: {"x"\n\n' + done()) as (url, _):
        assert [type(update) for update in await heard(ask(connect(url)))] == [Accepted, Pictures]


async def test_a_client_that_was_lent_stays_open():
    async with liar(STREAM + ACCEPTED + done()) as (url, _), httpx.AsyncClient(trust_env=False) as client:
        predictor = Predictor(url, "sd", client)
        await heard(ask(predictor))
        await predictor.close()
        assert not client.is_closed
