"""Server-sent events, read as their bytes come in (WHATWG HTML, sections 9.2.5 and 9.2.6).

`id` and `retry` are for clients that connect again; the predictor's streams are about one request and are not resumed.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
LINE_END = re.compile(rb"\r\n|\r|\n")


class Event(NamedTuple):
    """One event; `data` is its lines, joined."""

    name: str
    data: bytes


class EventTooLarge(ValueError):
    """An event has more bytes than the reader takes."""


class EventReader:
    """Takes a stream's bytes in pieces of any size.

    Args:
        limit: bytes of one event, field names and line ends included.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._size = 0  # of the event's whole lines so far
        self._line = bytearray()  # what has no end yet
        self._half_ended = False  # after a carriage return, whose line feed may come with the next piece
        self._first = True
        self._name = ""
        self._data: list[bytes] = []

    def feed(self, piece: bytes) -> Iterator[Event]:
        """The events that `piece` completes; what an ended stream leaves incomplete is no event.

        Raises:
            EventTooLarge: once more than the limit has come without an event's end.
        """
        if self._half_ended and piece:
            self._half_ended, piece = False, piece.removeprefix(b"\n")
        start = 0
        for end in LINE_END.finditer(piece):
            self._add(piece[start : end.start()])
            start = end.end()
            self._half_ended = end[0] == b"\r" and start == len(piece)
            line = bytes(self._line)
            self._line.clear()
            if event := self._take(line):
                yield event
        self._add(piece[start:])

    def _add(self, part: bytes) -> None:
        self._line += part
        if self._size + len(self._line) > self._limit:
            raise EventTooLarge(f"an event of more than {self._limit} bytes")

    def _take(self, line: bytes) -> Event | None:
        self._size += len(line) + 1
        if self._first:
            self._first, line = False, line.removeprefix(BYTE_ORDER_MARK)
        if not line:
            return self._ended()
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._data.append(value)
        elif field == b"event":
            self._name = value.decode("utf-8", "replace")
        return None

    def _ended(self) -> Event | None:
        name, data = self._name or "message", self._data
        self._name, self._data, self._size = "", [], 0
        return Event(name, b"\n".join(data)) if data else None
