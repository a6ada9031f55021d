"""The reader of server-sent events: how the bytes are cut into pieces never matters."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from predictor.asgi.events import encoded
from predictor.edge.sse import Event, EventReader, EventTooLarge

ENDS = st.sampled_from([b"\n", b"\r", b"\r\n"])
TEXT = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=8).map(str.encode)
LINES = st.one_of(
    st.just(b""),
    TEXT,
    st.builds(lambda text: b"data:" + text, TEXT),
    st.builds(lambda text: b"data: " + text, TEXT),
    st.builds(lambda text: b"event: " + text, TEXT),
    st.builds(lambda text: b": " + text, TEXT),
    st.sampled_from([b"data", b"event", b"id: 7", b"retry: 10", b"\xff\xfe: \xff"]),
)


def read(*pieces: bytes, limit: int = 1000) -> list[Event]:
    reader = EventReader(limit)
    return [event for piece in pieces for event in reader.feed(piece)]


def told(stream: bytes) -> list[Event]:
    """What the standard says, word by word, of a whole stream."""
    text = stream.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    found, name, data = [], b"", []
    for line in text.split(b"\n")[:-1]:
        if line:
            field, _, value = line.partition(b":")
            value = value[1:] if value[:1] == b" " else value
            if field == b"data":
                data.append(value)
            elif field == b"event":
                name = value
        else:
            if data:
                found.append(Event(name.decode("utf-8", "replace") or "message", b"\n".join(data)))
            name, data = b"", []
    return found


@given(st.lists(st.tuples(LINES, ENDS), max_size=20), st.booleans(), st.data())
def test_any_cutting_gives_the_events_of_the_standard(lines, marked, data):
    stream = b"\xef\xbb\xbf" * marked + b"".join(line + end for line, end in lines)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=30)))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert read(*pieces) == told(stream)
    assert read(*(bytes([byte]) for byte in stream)) == told(stream)


@given(st.lists(st.tuples(st.sampled_from(["accepted", "done"]), st.dictionaries(st.text(), st.text(), max_size=3))))
def test_what_the_server_encodes_is_what_is_read(events):
    found = read(b"".join(encoded(name, body) for name, body in events), limit=10**6)
    assert [(event.name, json.loads(event.data)) for event in found] == events


def test_an_event_ends_with_its_empty_line_and_not_before():
    reader = EventReader(100)
    assert list(reader.feed(b"event: done\ndata: 1\n")) == []
    assert list(reader.feed(b"\r")) == [Event("done", b"1")]
    assert list(reader.feed(b"\ndata: 2\n\n")) == [Event("message", b"2")]


def test_events_up_to_the_limit_come_and_one_beyond_it_is_refused():
    event = b"data: " + b"x" * 93 + b"\n"
    assert len(read(*[event + b"\n"] * 3, limit=100)) == 3
    with pytest.raises(EventTooLarge, match="more than 99 bytes"):
        read(event + b"\n", limit=99)
    with pytest.raises(EventTooLarge):
        read(*[b"x" * 10] * 10, limit=99)
    with pytest.raises(EventTooLarge):
        read(*[b"data: x\n"] * 20, limit=99)
    assert len(read(*[b": nothing\n\n"] * 100, event, b"\n", limit=100)) == 1
