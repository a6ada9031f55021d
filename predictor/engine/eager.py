"""The runtime on torch: diffusers' own modules, called for many rows at once, on any device.

Small batches on a GPU wait for the CPU to launch some thousand kernels a step; there the whole step is captured once
as a CUDA graph and replayed.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from predictor.engine.resources import host_memory
from predictor.engine.runtime import DeviceFull, Embedding, Floats, Pixels, State, StepRow, Tokens
from predictor.engine.samplers import Column

# Batches that are captured; a larger one keeps the GPU busy for longer than its launches take.
GRAPH_ROWS = (1, 2, 4)
DECODE_ROWS = 4  # images decoded at once: the decoder's activations are the largest of all
COLUMNS = len(Column)

P = ParamSpec("P")
R = TypeVar("R")


def _device_full(call: Callable[P, R]) -> Callable[P, R]:
    """Turn torch's out-of-memory errors of a method into `DeviceFull`."""

    @functools.wraps(call)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return call(*args, **kwargs)
        except torch.OutOfMemoryError as error:
            reason = str(error).splitlines()[0]
        except RuntimeError as error:
            if "can't allocate memory" not in str(error):  # the CPU allocator has no exception of its own
                raise
            reason = str(error).splitlines()[0]
        # Only here are the frames of the failed call gone, and with them the tensors that they held.
        torch.cuda.empty_cache()
        raise DeviceFull(reason)

    return guarded


@dataclass(slots=True, eq=False)
class _Embedding:
    hidden: Tensor  # [tokens, width]
    pooled: Tensor | None  # [width], SDXL


@dataclass(slots=True, eq=False)
class _State:
    latents: Tensor  # float32 [channels, h, w]
    denoised: Tensor


@dataclass(slots=True)
class _Batch:
    """A step's inputs on the device. `scalars` holds each row's coefficients, timestep and guidance scale."""

    latents: Tensor  # float32 [rows, channels, h, w]
    denoised: Tensor
    noise: Tensor
    scalars: Tensor  # float32 [rows, COLUMNS + 2]
    hidden: Tensor  # [rows or 2 rows, tokens, width]: negatives first where guidance is on
    pooled: Tensor | None  # SDXL: [rows or 2 rows, width]
    time_ids: Tensor | None  # SDXL: [rows or 2 rows, 6]: original size, crop, target size


class EagerRuntime:
    """`Runtime` on torch modules that are already on `device`; latents are float32, modules run in their own dtype."""

    def __init__(
        self,
        unet: Any,
        vae: Any,
        text_encoders: list[Any],
        device: torch.device,
        cuda_graphs: bool,
    ) -> None:
        self.unet, self.vae, self.text_encoders, self.device = unet, vae, text_encoders, device
        self.cuda_graphs = cuda_graphs and device.type == "cuda"
        self.scale = 2 ** (len(vae.config.block_out_channels) - 1)
        self.channels = unet.config.in_channels
        self.wants_time_ids = unet.config.addition_embed_type == "text_time"
        self._graphs: dict[tuple[Any, ...], tuple[torch.cuda.CUDAGraph, _Batch, tuple[Tensor, Tensor]]] = {}
        # What one pixel of an image costs while it is decoded, and of a row while it steps: an estimate from the
        # widths of the outermost blocks, with room for their copies. `DeviceFull` remains the judge.
        width = next(unet.parameters()).element_size()
        vae_width = next(vae.parameters()).element_size()
        self._decode_bytes = 10 * vae.config.block_out_channels[0] * vae_width
        self._step_bytes = 2 * 40 * unet.config.block_out_channels[0] * width // self.scale**2

    @_device_full
    @torch.inference_mode()
    def encode(self, prompts: list[Tokens | None]) -> list[Embedding]:
        """Hidden states [tokens, width] per prompt and, for SDXL, its pooled text; zeros where there is no prompt."""
        hidden, pooled = [], None
        for number, encoder in enumerate(self.text_encoders):
            ids = np.stack([np.zeros(encoder.length, np.int64) if p is None else p[number] for p in prompts])
            last, before, projected = encoder(torch.from_numpy(ids).to(self.device))
            # SDXL reads the layer before the last, and the pooled text of its second encoder.
            hidden.append(before if self.wants_time_ids else last)
            pooled = projected if projected is not None else pooled
        joined = torch.cat(hidden, dim=-1)
        for row, prompt in enumerate(prompts):
            if prompt is None:
                joined[row].zero_()
                if pooled is not None:
                    pooled[row].zero_()
        return [
            Embedding(_Embedding(joined[row], None if pooled is None else pooled[row])) for row in range(len(prompts))
        ]

    @_device_full
    @torch.inference_mode()
    def step(self, rows: list[StepRow]) -> list[State]:
        """One UNet call for all rows, twice as wide if any is guided; small batches replay a captured graph."""
        guided = any(row.guidance_scale != 1.0 for row in rows)
        size = next(rung for rung in (*GRAPH_ROWS, len(rows)) if rung >= len(rows))
        if self.cuda_graphs and size <= GRAPH_ROWS[-1]:
            latents, denoised = self._replay(self._batch([*rows, *[rows[-1]] * (size - len(rows))], guided), guided)
        else:
            latents, denoised = self._step(self._batch(rows, guided), guided)
        self._wait()
        return [State(_State(latents[row], denoised[row])) for row in range(len(rows))]

    def denoised(self, state: State) -> Floats:
        """The last estimate of the finished latents, float32 [channels, height/8, width/8]."""
        return _own(state).denoised.cpu().numpy()

    @_device_full
    @torch.inference_mode()
    def decode(self, states: list[State]) -> list[Pixels]:
        """Latents → uint8 [height, width, 3], a few images at a time."""
        pictures: list[Pixels] = []
        config = self.vae.config
        for first in range(0, len(states), DECODE_ROWS):
            latents = torch.stack([_own(state).latents for state in states[first : first + DECODE_ROWS]])
            latents = latents / config.scaling_factor + (getattr(config, "shift_factor", None) or 0.0)
            image = self.vae.decode(self._image(latents, self.vae), return_dict=False)[0].float()
            levels = (image / 2 + 0.5).clamp(0, 1).mul(255).round().to(torch.uint8)
            pictures += list(levels.permute(0, 2, 3, 1).contiguous().cpu().numpy())
        return pictures

    def capacity(self, height: int, width: int) -> int:
        """Rows of this size (pixels) that fit into the memory that is free now."""
        free = free_memory(self.device)
        if free < self._decode_bytes * height * width:
            return 0
        return max(1, int(free // (self._step_bytes * height * width)))

    def max_pixels(self) -> int:
        """The largest image whose decoding fits into the memory that is free now."""
        return int(free_memory(self.device) // self._decode_bytes)

    def warm(self, height: int, width: int, blank: Tokens) -> None:
        """Make one picture of nothing, so that the first request finds libraries loaded and graphs captured."""
        latents = np.zeros((self.channels, height // self.scale, width // self.scale), np.float32)
        embedding = self.encode([blank])[0]
        coefficients = np.zeros(COLUMNS, np.float32)
        row = StepRow(latents, embedding, embedding, 1.0, 2.0, coefficients, None)
        self.decode(self.step([row]))

    def _image(self, latents: Tensor, module: nn.Module) -> Tensor:
        return latents.to(next(module.parameters()).dtype).to(memory_format=torch.channels_last)

    def _batch(self, rows: list[StepRow], guided: bool) -> _Batch:
        states = [self._state(row.state) for row in rows]
        latents = torch.stack([state.latents for state in states])
        if any(row.noise is not None for row in rows):
            zeros = np.zeros(latents.shape[1:], np.float32)
            noise = torch.from_numpy(np.stack([zeros if row.noise is None else row.noise for row in rows])).to(
                self.device
            )
        else:
            noise = torch.zeros_like(latents)
        scalars = np.empty((len(rows), COLUMNS + 2), np.float32)
        for number, row in enumerate(rows):
            scalars[number, :COLUMNS] = row.coefficients
            scalars[number, COLUMNS:] = row.timestep, row.guidance_scale
        prompts = [_own_embedding(row.embedding) for row in rows]
        if guided:
            prompts = [_own_embedding(row.negative) for row in rows] + prompts
        pooled = time_ids = None
        if self.wants_time_ids:
            pooled = torch.stack([prompt.pooled for prompt in prompts if prompt.pooled is not None])
            height, width = latents.shape[2] * self.scale, latents.shape[3] * self.scale
            time_ids = torch.tensor([[height, width, 0, 0, height, width]] * len(prompts), dtype=pooled.dtype).to(
                self.device
            )
        return _Batch(
            latents=latents,
            denoised=torch.stack([state.denoised for state in states]),
            noise=noise,
            scalars=torch.from_numpy(scalars).to(self.device, non_blocking=True),
            hidden=torch.stack([prompt.hidden for prompt in prompts]),
            pooled=pooled,
            time_ids=time_ids,
        )

    def _state(self, state: State | Floats) -> _State:
        if isinstance(state, np.ndarray):
            latents = torch.from_numpy(state).to(self.device)
            return _State(latents, torch.zeros_like(latents))
        return _own(state)

    def _step(self, batch: _Batch, guided: bool) -> tuple[Tensor, Tensor]:
        """Next latents and the denoised estimate, float32 [rows, channels, h, w]."""
        scalars = [column[:, None, None, None] for column in batch.scalars.unbind(1)]
        timestep, latents = batch.scalars[:, COLUMNS], batch.latents
        model_input = self._image(latents, self.unet)
        extra: dict[str, Any] = {}
        if guided:
            model_input, timestep = torch.cat([model_input, model_input]), torch.cat([timestep, timestep])
        if batch.pooled is not None:
            extra["added_cond_kwargs"] = {"text_embeds": batch.pooled, "time_ids": batch.time_ids}
        out = self.unet(model_input, timestep, batch.hidden, return_dict=False, **extra)[0].float()
        if guided:
            negative, positive = out.chunk(2)
            out = negative + scalars[COLUMNS + 1] * (positive - negative)
        denoised = scalars[Column.DENOISED_LATENTS] * latents + scalars[Column.DENOISED_OUTPUT] * out
        following = (
            scalars[Column.LATENTS] * latents
            + scalars[Column.OUTPUT] * out
            + scalars[Column.MEMORY] * batch.denoised
            + scalars[Column.NOISE] * batch.noise
        )
        return following, denoised

    def _replay(self, batch: _Batch, guided: bool) -> tuple[Tensor, Tensor]:
        key = (tuple(batch.latents.shape), guided)
        if key not in self._graphs:
            self._graphs[key] = self._capture(batch, guided)
        graph, held, (latents, denoised) = self._graphs[key]
        for name in ("latents", "denoised", "noise", "scalars", "hidden", "pooled", "time_ids"):
            if getattr(held, name) is not None:
                getattr(held, name).copy_(getattr(batch, name), non_blocking=True)
        graph.replay()
        return latents.clone(), denoised.clone()

    def _capture(self, batch: _Batch, guided: bool) -> tuple[torch.cuda.CUDAGraph, _Batch, tuple[Tensor, Tensor]]:
        # cuDNN and cuBLAS choose and set up on a first run, which must not be captured.
        side = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            self._step(batch, guided)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            out = self._step(batch, guided)
        return graph, batch, out

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.current_stream().synchronize()


def free_memory(device: torch.device) -> int:
    """Bytes that tensors on `device` may still take, those in torch's own cache included."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return host_memory()


def _own(state: State) -> _State:
    assert isinstance(state, _State)
    return state


def _own_embedding(embedding: Embedding) -> _Embedding:
    assert isinstance(embedding, _Embedding)
    return embedding
