"""One attempt of one request: write, send, read, tell apart, and time each part. Blocking; gevent makes it yield."""

import http.client
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from loadtest.answers import Answer, Unreadable, digests, outcome
from loadtest.connections import Connection, Connections
from loadtest.dialects import Dialect
from loadtest.plan import Shot
from loadtest.samples import Outcome, Sample

_PIECE = 65_536


@dataclass
class Times:
    """On the generator's clock, as far as the attempt got."""

    sent: float
    connected: float | None = None
    first_byte: float | None = None


@dataclass
class HttpSender:
    """Sends one dialect's requests over connections of its own."""

    dialect: Dialect
    model: str
    connections: Connections
    headers: Mapping[str, str]
    clock: Callable[[], float]

    def send(self, shot: Shot, request_id: str, times: Times) -> Answer:
        """Ask and read to the end.

        Raises:
            OSError, http.client.HTTPException: no answer, or not the whole of it.
            Unreadable: an answer of success that is none.
        """
        message = self.dialect.write(shot, self.model)
        connection = self.connections.take()
        times.connected = self.clock()
        headers = {"Content-Type": "application/json", "x-request-id": request_id, **self.headers}
        whole = False
        try:
            connection.http.request("POST", self.connections.prefix + message.path, message.body, headers)
            reply = connection.http.getresponse()
            times.first_byte = self.clock()
            answer = self._read(reply)
            whole = True
            return answer
        finally:
            self._done(connection, whole)

    def greet(self, path: str) -> None:
        """Have the name resolved and, where there is a path that wakes nobody, TLS and the gateway warm.

        Raises:
            OSError, http.client.HTTPException: there is no such host, or nobody answers.
        """
        self.connections.resolve()
        if not path:
            return
        connection = self.connections.take()
        whole = False
        try:
            connection.http.request("GET", self.connections.prefix + path, headers=dict(self.headers))
            connection.http.getresponse().read()
            whole = True
        finally:
            self._done(connection, whole)

    def _read(self, reply: http.client.HTTPResponse) -> Answer:
        if self.dialect.follow and reply.headers.get_content_type() == "text/event-stream":
            size = 0

            def pieces() -> Iterator[bytes]:
                nonlocal size
                while piece := reply.read1(_PIECE):
                    size += len(piece)
                    yield piece

            answer = self.dialect.follow(pieces())
        else:
            body = reply.read()
            size = len(body)
            headers = {name.lower(): value for name, value in reply.headers.items()}
            answer = self.dialect.read(reply.status, headers, body)
        answer.bytes = size
        return answer

    def _done(self, connection: Connection, whole: bool) -> None:
        if whole:
            self.connections.give_back(connection)
        else:
            # The server must see that nobody waits any more.
            connection.http.close()


@dataclass(frozen=True)
class Attempt:
    """What came of one attempt: its sample and, of pictures, the files."""

    sample: Sample
    files: tuple[bytes, ...] = ()


def sample(
    shot: Shot, *, cycle: int, attempt: int, start: float, times: Times, finished: float, came: Answer | BaseException
) -> Attempt:
    """The record of an attempt that ended with an answer, an error, or TimeoutError when its client gave up.

    Args:
        shot: what was asked for.
        cycle: of the run.
        attempt: from 0.
        start: of the run on the generator's clock; the sample counts from it.
        times: what was noted on the way.
        finished: when it ended.
        came: the answer, or why there is none.
    """
    how: Outcome
    match came:
        case Answer():
            how, words = outcome(came, shot)
        case TimeoutError():
            how, words = "timeout", str(came)
        case Unreadable():
            how, words = "failed", str(came)
        case _:
            how, words = "lost", f"{type(came).__name__}: {came}"
    told = came if isinstance(came, Answer) else Answer(0)
    return Attempt(
        Sample(
            index=shot.index,
            attempt=attempt,
            target=shot.target,
            cycle=cycle,
            identity=shot.identity,
            intended=shot.at,
            sent=times.sent - start,
            connected=(finished if times.connected is None else times.connected) - start,
            first_byte=None if times.first_byte is None else times.first_byte - start,
            finished=finished - start,
            outcome=how,
            status=told.status,
            code=told.code,
            images=shot.images,
            steps=shot.steps,
            size=shot.size,
            digests=digests(told.files),
            cold=told.cold,
            cache=told.cache,
            job=told.job,
            gpu_seconds=told.gpu_seconds,
            server_timing=told.server_timing,
            bytes=told.bytes,
            error=words[:300],
        ),
        tuple(file for _, file in sorted(told.files, key=lambda pair: pair[0])),
    )
