"""What the predictor says, read by the edge."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from predictor.core.problems import Problem
from predictor.core.timeline import server_timing
from predictor.edge import answers
from predictor.edge.answers import Pictures
from predictor.edge.sse import Event
from tests.edge.predictors import DONE


@given(st.dictionaries(st.from_regex(r"(cold-)?[a-z_]{1,9}(-[a-z_]{1,9})?", fullmatch=True), st.floats(0, 1e4)))
def test_the_seconds_are_those_that_the_server_wrote(stages):
    parameters = DONE["parameters"] | {"server_timing": server_timing(stages.items())}
    event = Event("done", json.dumps(DONE | {"parameters": parameters}).encode())
    pictures = answers.update(event, 1)
    assert isinstance(pictures, Pictures)
    cold = {name: seconds for name, seconds in stages.items() if name.startswith("cold-")}
    assert {f"cold-{name}": seconds for name, seconds in pictures.cold_phases.items()} == pytest.approx(cold, abs=1e-4)
    warm = {name: seconds for name, seconds in stages.items() if name not in cold}
    assert pictures.timing == pytest.approx(warm, abs=1e-4)
    assert list(pictures.timing) == list(warm), "in the server's order"


@pytest.mark.parametrize("code", ["engine_lost", "deadline_exceeded", "draining", "cancelled", "internal"])
def test_a_problem_on_the_way_is_raised_as_what_it_is(code):
    event = Event("error", json.dumps({"error": "words", "code": code, "retry_after": 2}).encode())
    with pytest.raises(Problem, match="words") as caught:
        answers.update(event, 1)
    assert (caught.value.code, caught.value.retry_after) == (code, 2.0)
