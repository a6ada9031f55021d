"""An engine without a model: it speaks the protocol and paints each picture in one colour, taken from its seed.

How it behaves is told by the prompt ("hold", "die", "oom", "nonsense", "long") and by these environment variables:

    FAKE_LOG        a file that gets a line per event: start, generate ID, cancel ID, told to end
    FAKE_GATE       a file without which it is not ready
    FAKE_RELEASE    a file at which the prompt "hold" goes on
    FAKE_FAIL       it cannot start, and says so in these words
    FAKE_EXIT       it ends with this code before it is ready
    FAKE_WELL       a file with which it does start, FAKE_FAIL and FAKE_EXIT notwithstanding
    FAKE_REVISION   a file that holds the model's revision
    FAKE_STUBBORN   anything: it notes SIGTERM and goes on
"""

import argparse
import ctypes
import os
import signal
import sys
import time
from pathlib import Path

import msgspec
import numpy as np
import zmq

from predictor import clock
from predictor.core import messages
from predictor.core.problems import Cancelled, InvalidField, OutOfMemory, Problem
from predictor.core.request import PARAMETERS, Capabilities
from predictor.core.timeline import START, Mark
from predictor.settings import EngineSettings

CAPABILITIES = Capabilities(
    architecture="FakePipeline",
    revision="fake-1",
    runtime="eager",
    device="cpu",
    dtype="float32",
    parameters=tuple(PARAMETERS),
    samplers=("ddim", "euler"),
    default_sampler="euler",
    default_steps=4,
    max_steps=150,
    default_guidance_scale=7.5,
    max_guidance_scale=30.0,
    default_height=64,
    default_width=64,
    min_side=64,
    max_pixels=512 * 512,
    size_multiple=8,
    max_images=8,
    max_prompt_bytes=8192,
    max_prompt_tokens=77,
    previews=True,
)


class FakeEngine:
    """One thread, one socket, requests stepping in turn."""

    def __init__(self, socket: zmq.Socket) -> None:
        self.socket = socket
        self.running: dict[str, tuple[messages.Generate, int]] = {}

    def say(self, message: messages.FromEngine, *buffers: np.ndarray) -> None:
        self.socket.send_multipart([messages.encode(message), *buffers])

    def start(self) -> None:
        note("start")
        started = clock.process_start()
        self.say(messages.Marked(Mark("engine", START, started)))
        self.say(messages.Marked(Mark("engine", "imports", clock.now())))
        well = Path(os.environ.get("FAKE_WELL", "/nonexistent")).exists()
        if not well and (reason := os.environ.get("FAKE_FAIL")):
            self.say(messages.Failed(reason))
            self.socket.close(linger=2000)
            sys.exit(messages.CANNOT_START)
        if not well and (code := os.environ.get("FAKE_EXIT")):
            os._exit(int(code))
        if gate := os.environ.get("FAKE_GATE"):
            while not Path(gate).exists():
                time.sleep(0.005)
        self.say(messages.Marked(Mark("engine", "weights_read", clock.now(), since="imports")))
        capabilities = CAPABILITIES
        if path := os.environ.get("FAKE_REVISION"):
            capabilities = msgspec.structs.replace(capabilities, revision=Path(path).read_text())
        self.say(messages.Ready(capabilities))

    def serve(self) -> None:
        while True:
            while self.socket.poll(2 if self.running else 1000):
                self.receive(messages.decode_from_server(self.socket.recv()))
            for id in list(self.running):
                self.step(id)

    def receive(self, message: messages.FromServer) -> None:
        if isinstance(message, messages.Cancel):
            note(f"cancel {message.id}")
            if self.running.pop(message.id, None):
                self.end(message.id, Cancelled("cancelled"))
            return
        note(f"generate {message.id}")
        match message.request.prompt:
            case "die":
                os.kill(os.getpid(), signal.SIGKILL)
            case "oom":
                self.end(message.id, OutOfMemory("no memory left", retry_after=2.5))
            case "nonsense":
                self.socket.send_multipart([b"\xc1"])
            case "long":
                self.end(message.id, InvalidField.of("prompt", "99 tokens", "at most 77 tokens"))
            case prompt:
                words = len(prompt.split()) + 2
                self.say(messages.Accepted(message.id, words, 2))
                self.running[message.id] = (message, 0)

    def end(self, id: str, problem: Problem) -> None:
        self.say(messages.Ended(id, problem.record()))

    def step(self, id: str) -> None:
        job, done = self.running[id]
        request = job.request
        if request.prompt == "hold" and done and not released():
            return
        done += 1
        self.running[id] = (job, done)
        self.say(messages.Stepped("step", request.num_images, 0.002))
        if job.progress:
            small = [np.full((8, 8, 3), done, np.uint8)] * request.num_images if job.previews else []
            self.say(messages.Progressed(id, done, request.steps, 8 * bool(small), 8 * bool(small)), *small)
        if done == request.steps:
            del self.running[id]
            timing = messages.Timing(queue=0.001, encode=0.001, denoise=0.01, decode=0.001, gpu=0.5)
            pictures = [np.full((request.height, request.width, 3), seed % 251, np.uint8) for seed in request.seeds]
            self.say(messages.Finished(id, request.seeds, timing), *pictures)


def released() -> bool:
    return Path(os.environ.get("FAKE_RELEASE", "/nonexistent")).exists()


def note(line: str) -> None:
    """Append to the file that the test reads."""
    if path := os.environ.get("FAKE_LOG"):
        with Path(path).open("a") as file:
            file.write(line + "\n")


def main() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.environ.get("FAKE_STUBBORN"):
        signal.signal(signal.SIGTERM, lambda *_: note("told to end"))
    parser = argparse.ArgumentParser()
    parser.add_argument("--address", required=True)
    parser.add_argument("--settings", required=True)
    arguments = parser.parse_args()
    msgspec.json.decode(arguments.settings, type=EngineSettings)
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.connect(arguments.address)
        engine = FakeEngine(socket)
        engine.start()
        engine.serve()


if __name__ == "__main__":
    main()
