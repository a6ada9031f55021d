"""A whole runtime in a few lines of numpy: right about batching, memory and handles, wrong about pictures."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from predictor.engine.runtime import DeviceFull, Embedding, Floats, Pixels, State, StepRow, Tokens
from predictor.engine.samplers import Column


@dataclass
class NumpyRuntime:
    """`room` rows fit into one call; `faults` are raised by the next calls, one each."""

    room: int = 100
    decode_room: int = 100
    faults: list[Exception] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)
    encoded: int = 0

    def encode(self, prompts: list[Tokens | None]) -> list[Embedding]:
        self.encoded += len(prompts)
        return [Embedding(0.0 if p is None else float(np.sum(p[0] * np.arange(len(p[0]))) % 97)) for p in prompts]

    def step(self, rows: list[StepRow]) -> list[State]:
        if self.faults:
            raise self.faults.pop(0)
        if len(rows) > self.room:
            raise DeviceFull(f"no room for {len(rows)}")
        self.batches.append(len(rows))
        return [self._step(row) for row in rows]

    def _step(self, row: StepRow) -> State:
        latents, memory = row.state if isinstance(row.state, tuple) else (row.state, np.zeros_like(row.state))
        assert isinstance(latents, np.ndarray)
        text = row.negative + row.guidance_scale * (row.embedding - row.negative)  # type: ignore[operator]
        output = np.tanh(latents + 0.01 * text + row.timestep / 1000)
        c = row.coefficients
        following = c[Column.LATENTS] * latents + c[Column.OUTPUT] * output + c[Column.MEMORY] * memory
        if row.noise is not None:
            following = following + c[Column.NOISE] * row.noise
        return State((following, c[Column.DENOISED_LATENTS] * latents + c[Column.DENOISED_OUTPUT] * output))

    def denoised(self, state: State) -> Floats:
        handle: Any = state
        return handle[1]

    def decode(self, states: list[State]) -> list[Pixels]:
        if len(states) > self.decode_room:
            raise DeviceFull(f"no room to decode {len(states)}")
        return [self._picture(state) for state in states]

    def _picture(self, state: State) -> Pixels:
        handle: Any = state
        rgb = np.repeat(np.repeat(handle[0][:3].transpose(1, 2, 0), 8, 0), 8, 1)
        return ((np.tanh(rgb) + 1) * 127.5).astype(np.uint8)

    def capacity(self, height: int, width: int) -> int:
        return 100
