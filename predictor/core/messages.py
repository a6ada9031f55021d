"""What the server and its engine say to each other.

Both ends run on one host and speak over a ZeroMQ socket. A message is one frame of MessagePack, its type in the tag
`type`, and then the raw buffers that it announces (pixels, as C-ordered uint8), so that pictures are never copied into
the encoder.

    server                                    engine
      │ ◄── Marked* ── Ready | Failed ──────── │   starting
      │ ─── Generate ────────────────────────► │
      │ ◄── Accepted | Ended ──────────────── │   at once: counted tokens, or refused
      │ ◄── Progressed* ────────────────────── │   per step, when asked for
      │ ◄── Finished | Ended ──────────────── │   pictures, or why there are none
      │ ─── Cancel ──────────────────────────► │   at any time; answered by Ended
      │ ◄── Stepped* ───────────────────────── │   each device call, for metrics
"""

import msgspec

from predictor.core.problems import ProblemRecord
from predictor.core.request import Capabilities, GenerationRequest
from predictor.core.timeline import Mark

# Exit status of an engine that has sent `Failed`: to start it again would fail again.
CANNOT_START = 3


class Message(msgspec.Struct, frozen=True, tag_field="type", tag=str.lower):
    """Any of the messages below."""


class Generate(Message, frozen=True):
    """Make the pictures of `request` before `deadline` (seconds since boot)."""

    id: str
    request: GenerationRequest
    deadline: float
    progress: bool = False
    previews: bool = False


class Cancel(Message, frozen=True):
    """Stop working on a request; unknown ids are fine, for the request may just have ended."""

    id: str


class Marked(Message, frozen=True):
    """A moment of the engine's start."""

    mark: Mark


class Ready(Message, frozen=True):
    """The engine takes requests."""

    capabilities: Capabilities


class Failed(Message, frozen=True):
    """The engine cannot start, and why; it exits after this."""

    message: str


class Accepted(Message, frozen=True):
    """The request is in the queue; its prompts took so many tokens."""

    id: str
    prompt_tokens: int
    negative_prompt_tokens: int


class Progressed(Message, frozen=True):
    """`step` of `steps` is done for every image of the request.

    One buffer per image follows where previews were asked for: uint8 [height, width, 3].
    """

    id: str
    step: int
    steps: int
    preview_height: int = 0
    preview_width: int = 0


class Timing(msgspec.Struct, frozen=True):
    """Seconds that a request spent in each stage; they add up to its time in the engine."""

    queue: float
    encode: float
    denoise: float
    decode: float
    gpu: float  # this request's share of the device's time


class Finished(Message, frozen=True):
    """The pictures: one buffer per image follows, uint8 [height, width, 3]."""

    id: str
    seeds: tuple[int, ...]
    timing: Timing


class Ended(Message, frozen=True):
    """The request ended without pictures."""

    id: str
    problem: ProblemRecord


class Stepped(Message, frozen=True):
    """One device call took so long, for so many rows."""

    stage: str  # encode, step, decode
    rows: int
    seconds: float


FromServer = Generate | Cancel
FromEngine = Marked | Ready | Failed | Accepted | Progressed | Finished | Ended | Stepped

_encoder = msgspec.msgpack.Encoder()
_from_server: msgspec.msgpack.Decoder[FromServer] = msgspec.msgpack.Decoder(FromServer)
_from_engine: msgspec.msgpack.Decoder[FromEngine] = msgspec.msgpack.Decoder(FromEngine)


def encode(message: FromServer | FromEngine) -> bytes:
    """The message's first frame."""
    return _encoder.encode(message)


def decode_from_server(frame: bytes) -> FromServer:
    """The engine's half; raises msgspec.DecodeError for anything else."""
    return _from_server.decode(frame)


def decode_from_engine(frame: bytes) -> FromEngine:
    """The server's half; raises msgspec.DecodeError for anything else."""
    return _from_engine.decode(frame)
