"""One request, one outcome, and the same pictures, whatever else happens in the engine."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from predictor.core.messages import Accepted, Ended, Finished, Progressed, Stepped
from predictor.core.problems import Cancelled
from predictor.engine.denoiser import KEPT_EMBEDDINGS, Denoiser, Event
from predictor.engine.preview import LatentRGB
from predictor.engine.samplers import NoiseSchedule
from predictor.engine.tokens import Tokenizer
from tests.engine.asking import drain, generate
from tests.engine.numpy_runtime import NumpyRuntime

SHAPES = Path(__file__).parents[2] / "predictor/models/shapes"


class Clock:
    """Time that passes only when told to."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.load(SHAPES / "tokenizer")


def engine(tokenizer: Tokenizer, runtime: NumpyRuntime, now: Clock | None = None, max_rows: int = 8) -> Denoiser:
    schedule = NoiseSchedule.from_config({"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012})
    return Denoiser(
        runtime,
        [tokenizer],
        schedule,
        LatentRGB(np.eye(4, 3, dtype=np.float32), np.zeros(3, np.float32)),
        channels=4,
        scale=8,
        zero_empty_prompt=False,
        max_rows=max_rows,
        now=now or Clock(),
    )


def pictures(events: list[Event], id: str) -> np.ndarray:
    return next(np.stack(buffers) for message, buffers in events if isinstance(message, Finished) and message.id == id)


def outcomes(events: list[Event]) -> dict[str, str]:
    found: dict[str, str] = {}
    for message, _ in events:
        if isinstance(message, Finished | Ended):
            assert message.id not in found, f"{message.id} has two outcomes"
            found[message.id] = "finished" if isinstance(message, Finished) else message.problem.code
    return found


def test_alone_with_strangers_and_joined_midway_give_the_same_pixels(tokenizer: Tokenizer) -> None:
    alone = engine(tokenizer, NumpyRuntime())
    alone.add(generate(sampler="euler_a"))
    expected = pictures(drain(alone), "a")

    crowded = engine(tokenizer, NumpyRuntime())
    for number in range(5):
        crowded.add(generate(f"stranger-{number}", seed=number, sampler="dpmpp_2m", steps=7, prompt=f"blue {number}"))
    events = drain(crowded, calls=3)
    crowded.add(generate(sampler="euler_a"))
    assert np.array_equal(pictures(events + drain(crowded), "a"), expected)


def test_image_i_has_seed_plus_i(tokenizer: Tokenizer) -> None:
    three = engine(tokenizer, NumpyRuntime())
    three.add(generate(seed=10, num_images=3))
    events = drain(three)
    one = engine(tokenizer, NumpyRuntime())
    one.add(generate(seed=12))
    assert np.array_equal(pictures(events, "a")[2], pictures(drain(one), "a")[0])
    assert next(m.seeds for m, _ in events if isinstance(m, Finished)) == (10, 11, 12)


def test_tokens_are_counted_before_anything_runs(tokenizer: Tokenizer) -> None:
    [(accepted, _)] = engine(tokenizer, NumpyRuntime()).add(generate(prompt="a red circle"))
    assert isinstance(accepted, Accepted)
    assert accepted.prompt_tokens >= 3
    assert accepted.negative_prompt_tokens == 0


def test_a_long_prompt_is_refused_with_its_count_or_cut_when_asked(tokenizer: Tokenizer) -> None:
    denoiser = engine(tokenizer, NumpyRuntime())
    [(refused, _)] = denoiser.add(generate(prompt="red " * 300))
    assert isinstance(refused, Ended)
    assert refused.problem.field == "prompt"
    assert "got 300 tokens; allowed: at most 75" in refused.problem.message
    assert not denoiser.busy
    [(accepted, _)] = denoiser.add(generate(prompt="red " * 300, truncate_prompt=True))
    assert isinstance(accepted, Accepted)
    assert accepted.prompt_tokens == 300


def test_a_cancelled_request_leaves_at_the_next_step_and_the_others_finish(tokenizer: Tokenizer) -> None:
    runtime = NumpyRuntime()
    denoiser = engine(tokenizer, runtime)
    denoiser.add(generate("a", steps=10, num_images=4))
    denoiser.add(generate("b", steps=10))
    drain(denoiser, calls=2)
    ended = denoiser.end("a", Cancelled("gone"))
    assert outcomes(ended + drain(denoiser)) == {"a": "cancelled", "b": "finished"}
    assert runtime.batches == [5, 5] + [1] * 8


def test_an_unknown_id_is_no_outcome(tokenizer: Tokenizer) -> None:
    assert engine(tokenizer, NumpyRuntime()).end("nobody", Cancelled("gone")) == []


def test_a_late_request_ends_at_the_next_step(tokenizer: Tokenizer) -> None:
    clock, runtime = Clock(), NumpyRuntime()
    denoiser = engine(tokenizer, runtime, clock)
    denoiser.add(generate(steps=10, deadline=5.0))
    denoiser.advance()
    clock.seconds = 5.0
    assert outcomes(denoiser.advance()) == {"a": "deadline_exceeded"}
    assert len(runtime.batches) == 1
    assert not denoiser.busy


def test_a_batch_that_does_not_fit_is_split_without_changing_a_pixel(tokenizer: Tokenizer) -> None:
    roomy, tight = NumpyRuntime(), NumpyRuntime(room=2, decode_room=1)
    found = []
    for runtime in (roomy, tight):
        denoiser = engine(tokenizer, runtime)
        denoiser.add(generate(num_images=8))
        found.append(pictures(drain(denoiser), "a"))
    assert np.array_equal(*found)
    assert max(tight.batches) == 2


def test_an_image_that_never_fits_ends_as_retryable_and_the_loop_goes_on(tokenizer: Tokenizer) -> None:
    runtime = NumpyRuntime(room=0)
    denoiser = engine(tokenizer, runtime)
    denoiser.add(generate("a", num_images=3))
    assert outcomes(drain(denoiser)) == {"a": "out_of_memory"}
    runtime.room, runtime.decode_room = 100, 0
    denoiser.add(generate("b"))
    assert outcomes(drain(denoiser)) == {"b": "out_of_memory"}
    runtime.decode_room = 100
    denoiser.add(generate("c"))
    assert outcomes(drain(denoiser)) == {"c": "finished"}


def test_one_failed_call_ends_its_own_requests_only(tokenizer: Tokenizer, caplog: pytest.LogCaptureFixture) -> None:
    runtime = NumpyRuntime(faults=[ValueError("a bug")])
    denoiser = engine(tokenizer, runtime, max_rows=1)
    denoiser.add(generate("a"))
    denoiser.add(generate("b"))
    assert outcomes(drain(denoiser)) == {"a": "internal", "b": "finished"}
    assert "a bug" in caplog.text


def test_two_failed_calls_in_a_row_end_the_process(tokenizer: Tokenizer) -> None:
    denoiser = engine(tokenizer, NumpyRuntime(faults=[ValueError("one"), ValueError("two")]), max_rows=1)
    denoiser.add(generate("a"))
    denoiser.add(generate("b"))
    denoiser.advance()
    with pytest.raises(ValueError, match="two"):
        denoiser.advance()


def test_progress_counts_every_step_and_previews_come_with_it(tokenizer: Tokenizer) -> None:
    denoiser = engine(tokenizer, NumpyRuntime())
    denoiser.add(generate(progress=True, previews=True, num_images=2))
    denoiser.add(generate("quiet"))
    events = drain(denoiser)
    progress = [(message, buffers) for message, buffers in events if isinstance(message, Progressed)]
    assert [(m.id, m.step, m.steps) for m, _ in progress] == [("a", step, 4) for step in (1, 2, 3, 4)]
    assert all(len(buffers) == 2 and buffers[0].shape == (8, 8, 3) for _, buffers in progress)
    assert (progress[0][0].preview_height, progress[0][0].preview_width) == (8, 8)


def test_repeated_prompts_are_encoded_once_and_the_memory_is_bounded(tokenizer: Tokenizer) -> None:
    runtime = NumpyRuntime()
    denoiser = engine(tokenizer, runtime)
    for number in range(KEPT_EMBEDDINGS + 10):
        denoiser.add(generate(str(number), steps=1, prompt=f"red {number}"))
        drain(denoiser)
    assert runtime.encoded == KEPT_EMBEDDINGS + 10 + 1, "the empty negative prompt is encoded once"
    assert len(denoiser.embeddings) == KEPT_EMBEDDINGS


def test_stages_add_up_to_the_time_in_the_engine(tokenizer: Tokenizer) -> None:
    clock = Clock()

    class Slow(NumpyRuntime):
        def step(self, rows):  # type: ignore[no-untyped-def]
            clock.seconds += 1.0
            return super().step(rows)

        def decode(self, states):  # type: ignore[no-untyped-def]
            clock.seconds += 0.25
            return super().decode(states)

    several = engine(tokenizer, Slow(), clock)
    several.add(generate("a", steps=3, num_images=4))
    [together] = [m.timing for m, _ in drain(several) if isinstance(m, Finished)]
    assert (together.denoise, together.decode, together.gpu) == (3.0, 0.25, 3.25), "one call counts once"

    denoiser = engine(tokenizer, Slow(), clock, max_rows=1)
    denoiser.add(generate("a", steps=3))
    denoiser.add(generate("b", steps=2))
    events = drain(denoiser)
    timing = {m.id: m.timing for m, _ in events if isinstance(m, Finished)}
    assert (timing["a"].queue, timing["a"].denoise, timing["a"].decode, timing["a"].gpu) == (0.0, 3.0, 0.25, 3.25)
    assert (timing["b"].queue, timing["b"].denoise, timing["b"].decode) == (3.25, 2.0, 0.25)
    assert sum(m.seconds for m, _ in events if isinstance(m, Stepped)) == 5.5


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_any_traffic_ends_in_one_outcome_each(tokenizer: Tokenizer, data: st.DataObject) -> None:
    clock = Clock()
    denoiser = engine(tokenizer, NumpyRuntime(room=data.draw(st.integers(1, 5))), clock, max_rows=4)
    events: list[Event] = []
    sent = data.draw(st.integers(1, 8))
    for number in range(sent):
        clock.seconds += 1
        events += denoiser.add(
            generate(
                str(number),
                deadline=clock.seconds + data.draw(st.sampled_from([2, 1e9])),
                steps=data.draw(st.integers(1, 5)),
                num_images=data.draw(st.integers(1, 3)),
                width=data.draw(st.sampled_from([64, 128])),
                sampler=data.draw(st.sampled_from(["ddim", "euler_a", "dpmpp_2m", "lcm"])),
            )
        )
        for _ in range(data.draw(st.integers(0, 3))):
            events += denoiser.advance()
        if data.draw(st.booleans()):
            events += denoiser.end(str(data.draw(st.integers(0, number))), Cancelled("gone"))
    events += drain(denoiser)
    assert sorted(outcomes(events)) == sorted(map(str, range(sent)))
