from typing import Any, get_args, get_origin

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from predictor.core import messages
from predictor.core.request import MAX_SEED

SEEDS = st.integers(0, MAX_SEED)  # MessagePack ends at 64 bits
PLAIN: dict[Any, st.SearchStrategy[Any]] = {
    int: SEEDS,
    float: st.floats(allow_nan=False),
    float | None: st.none() | st.floats(allow_nan=False),
    int | None: st.none() | SEEDS,
    tuple[int, int]: st.tuples(SEEDS, SEEDS),
}


def of(kind: Any) -> st.SearchStrategy[Any]:
    """Instances of a type; a Struct's are built field by field."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        fields = {field.name: of(field.type) for field in msgspec.structs.fields(kind)}
        return st.fixed_dictionaries(fields).map(lambda values: kind(**values))
    if kind in PLAIN:
        return PLAIN[kind]
    if get_origin(kind) is tuple:
        return st.lists(of(get_args(kind)[0]), max_size=8).map(tuple)
    return st.from_type(kind)


@given(st.one_of([of(kind) for kind in get_args(messages.FromServer)]))
def test_what_the_server_says_arrives(message: Any) -> None:
    assert messages.decode_from_server(messages.encode(message)) == message


@given(st.one_of([of(kind) for kind in get_args(messages.FromEngine)]))
def test_what_the_engine_says_arrives(message: Any) -> None:
    assert messages.decode_from_engine(messages.encode(message)) == message


def test_every_message_belongs_to_one_side() -> None:
    sides = [*get_args(messages.FromServer), *get_args(messages.FromEngine)]
    assert len(sides) == len(set(sides))
    assert set(sides) == set(messages.Message.__subclasses__())
    for kind in sides:
        assert kind.__name__ in (messages.__doc__ or ""), "the drawing lacks it"


@given(st.binary())
def test_other_bytes_are_refused(frame: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        messages.decode_from_server(frame)
    with pytest.raises(msgspec.DecodeError):
        messages.decode_from_engine(frame)


def test_the_sides_are_not_confused() -> None:
    with pytest.raises(msgspec.DecodeError):
        messages.decode_from_engine(messages.encode(messages.Cancel("a")))
    with pytest.raises(msgspec.DecodeError):
        messages.decode_from_server(messages.encode(messages.Failed("no such folder")))
