import re

import grpc
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from predictor.core import problems
from predictor.core.problems import PROBLEMS, InvalidField, Problem, ProblemRecord, shown

ROW = re.compile(r"    (?P<trunk>[│├└─ ]*)(?P<name>[A-Z]\w+) +(?P<rest>\S.*)")


def drawing() -> list[tuple[int, str, str]]:
    """(depth, class name, rest of the line) of every line of the tree that the module's docstring draws."""
    rows = [ROW.fullmatch(line) for line in (problems.__doc__ or "").splitlines()]
    return [(len(row["trunk"]) // 4, row["name"], row["rest"]) for row in rows if row]


def kinds(root: type[Problem] = Problem) -> list[type[Problem]]:
    return [root, *(kind for child in root.__subclasses__() for kind in kinds(child))]


def test_the_drawing_is_the_tree() -> None:
    ancestors: list[str] = []
    for depth, name, _ in drawing():
        ancestors[depth:] = [name]
        kind = getattr(problems, name)
        if depth:
            assert kind.__bases__ == (getattr(problems, ancestors[depth - 1]),), name
    assert [name for _, name, _ in drawing()] == [kind.__name__ for kind in kinds()]  # in the file's order, too


def test_the_drawing_has_each_code_and_who_should_retry() -> None:
    drawn = set()
    for _, name, rest in drawing():
        kind = getattr(problems, name)
        columns = re.split(r"\s{2,}", rest)
        if hasattr(kind, "code"):
            code, http, status, retries = columns
            drawn.add(code)
            assert (code, int(http), status) == (kind.code, kind.http, kind.grpc)
            assert kind.retryable == retries.startswith("the client"), name
        else:  # a heading, or a branch that is never raised itself
            assert kind.__subclasses__()
    assert drawn == set(PROBLEMS)


def test_every_grpc_status_exists() -> None:
    assert all(hasattr(grpc.StatusCode, kind.grpc) for kind in PROBLEMS.values())


def test_a_client_that_retries_503_and_429_retries_what_may_help() -> None:
    assert {kind for kind in PROBLEMS.values() if kind.http in (429, 503)} == {
        kind for kind in PROBLEMS.values() if kind.retryable
    }


@given(
    kind=st.sampled_from([*PROBLEMS.values()]),
    message=st.text(),
    field=st.text(),
    retry_after=st.none() | st.floats(0, 3600),
)
def test_every_problem_survives_its_record(
    kind: type[Problem], message: str, field: str, retry_after: float | None
) -> None:
    problem = kind(message, field=field, retry_after=retry_after)
    wire = msgspec.msgpack.encode(problem.record())
    same = msgspec.msgpack.decode(wire, type=ProblemRecord).problem()
    assert type(same) is kind
    assert (same.message, same.field, same.retry_after) == (message, field, retry_after)
    assert str(same) == message


def test_a_problem_without_a_field_survives_its_record() -> None:
    same = problems.QueueFull("64 images are waiting", retry_after=2.0).record().problem()
    assert type(same) is problems.QueueFull
    assert same.field is None


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("dpm", "'dpm'"),
        ("x" * 100, "'" + "x" * 59 + "… (102 characters)"),
        ("\ud800", r"'\ud800'"),
        ([8, 8], "[8, 8]"),
        (True, "True"),
        (7.5, "7.5"),
    ],
)
def test_values_are_shown_in_short(value: object, text: str) -> None:
    assert shown(value) == text


def test_a_number_of_more_digits_than_python_prints_is_shown_by_its_size() -> None:
    assert shown(10**5000) == shown(-(10**5000)) == "a whole number of 16610 bits"


def test_a_deep_list_is_shown_without_following_it_down() -> None:
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    assert len(shown(deep)) < 100


def test_a_name_that_the_client_chose_is_kept_short_and_sendable() -> None:
    problem = InvalidField.of("x" * 10**6, 1, "prompt")
    assert len(problem.message) < 200
    assert len(problem.field or "") < 200
    assert InvalidField.of("\ud800", 1, "prompt").message == r"\ud800: got 1; allowed: prompt"
