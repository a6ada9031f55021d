"""The engine process: socket, model, and the loop that drives one with the other."""

import ctypes
import logging
import signal
from collections.abc import Sequence

import msgspec
import zmq

from predictor.clock import now, process_start
from predictor.core.messages import (
    CANNOT_START,
    Cancel,
    Failed,
    FromEngine,
    FromServer,
    Generate,
    Marked,
    Ready,
    decode_from_server,
    encode,
)
from predictor.core.problems import Cancelled
from predictor.core.timeline import START, Mark
from predictor.engine.baked.bundle import BundleError
from predictor.engine.baked.native import LibtorchError
from predictor.engine.baked.prelude import Prelude
from predictor.engine.folder import FolderError
from predictor.engine.load import Worker, load
from predictor.engine.runtime import Pixels
from predictor.engine.weights import WeightError
from predictor.settings import EngineSettings

log = logging.getLogger(__name__)

PR_SET_PDEATHSIG = 1  # linux/prctl.h


class Link:
    """The engine's end of the socket."""

    def __init__(self, address: str) -> None:
        self.socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
        self.socket.set_hwm(0)  # pictures wait in memory rather than the device
        self.socket.connect(address)

    def send(self, message: FromEngine, buffers: Sequence[Pixels] = ()) -> None:
        """One message and the buffers it announces."""
        self.socket.send_multipart([encode(message), *(picture.data for picture in buffers)], copy=False)

    def receive(self, wait: bool) -> list[FromServer]:
        """All messages that are here; with `wait`, at least one."""
        messages: list[FromServer] = []
        while self.socket.poll(None if wait and not messages else 0):
            messages.append(decode_from_server(self.socket.recv()))
        return messages

    def close(self) -> None:
        """Deliver what is still in the queue."""
        self.socket.close(linger=2000)


def serve(address: str, settings: EngineSettings, prelude: Prelude | None) -> int:
    """Connect, load, work until the server goes away; exit status 3 says that the model cannot be served."""
    _follow_parent()
    _log_json()
    link = Link(address)

    def mark(name: str, since: str = START, at: float | None = None) -> None:
        link.send(Marked(Mark("engine", name, now() if at is None else at, since)))

    mark(START, at=process_start())
    mark("interpreter")
    try:
        worker, capabilities = load(settings, mark, prelude)
    except (FolderError, WeightError, BundleError, LibtorchError) as error:
        return _cannot_start(link, str(error))
    except Exception as error:
        log.exception("the model could not be loaded")
        return _cannot_start(link, f"{settings.model or settings.bundle}: {type(error).__name__}: {error}")
    link.send(Ready(capabilities))
    mark("ready", "interpreter")
    run(link, worker)
    return 0


def _cannot_start(link: Link, reason: str) -> int:
    link.send(Failed(reason))
    link.close()
    return CANNOT_START


def run(link: Link, worker: Worker) -> None:
    """Take messages between steps, for ever."""
    while True:
        for message in link.receive(wait=not worker.busy):
            match message:
                case Generate():
                    events = worker.add(message)
                case Cancel():
                    events = worker.end(message.id, Cancelled("the request was taken back"))
            for event, pictures in events:
                link.send(event, pictures)
        if worker.busy:
            for event, pictures in worker.advance():
                link.send(event, pictures)


def _follow_parent() -> None:
    """Die with the server, and leave Ctrl-C to it: it lets running requests finish."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _log_json() -> None:
    class Line(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            line = {"level": record.levelname.lower(), "process": "engine", "event": record.getMessage()}
            if record.exc_info:
                line["exception"] = self.formatException(record.exc_info)
            return msgspec.json.encode(line).decode()

    handler = logging.StreamHandler()
    handler.setFormatter(Line())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
