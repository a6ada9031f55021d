"""One stage of training: AdamW, a schedule tied to a budget, and a running average of the weights for export."""

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from typing import Final

import torch

from predictor.lab.shapes.checkpoint import Tensors

_WARM_UP: Final = 0.03
_FINAL_RATE: Final = 0.02
_LONGEST_AVERAGE: Final = 0.999

Loss = Callable[..., torch.Tensor]
Graph = tuple[torch.cuda.CUDAGraph, list[torch.Tensor], torch.Tensor]


@dataclasses.dataclass(frozen=True)
class Budget:
    """How much training a stage gets over all runs: whichever of the two is given is the measure."""

    seconds: float | None
    steps: int | None

    def share(self, seconds: float, steps: int) -> float:
        """The part that is spent, 0..1."""
        if self.steps is not None:
            return min(1.0, steps / self.steps)
        if self.seconds is not None:
            return min(1.0, seconds / self.seconds)
        raise ValueError("a budget needs seconds or steps")


def rate_factor(share: float) -> float:
    """Linear warm-up, then a half cosine down to 2 % at `share` 1, so that a run always ends with small steps."""
    if share < _WARM_UP:
        return (share + 1e-3) / (_WARM_UP + 1e-3)
    return _FINAL_RATE + (1 - _FINAL_RATE) * 0.5 * (1 + math.cos(math.pi * (share - _WARM_UP) / (1 - _WARM_UP)))


class Trainer:
    """Updates named parameters from losses and counts what that took.

    `seconds` is training time over all runs; `average` holds the exponential mean of the weights (its memory grows
    with the number of steps, up to about a thousand).
    """

    def __init__(
        self, parameters: dict[str, torch.nn.Parameter], rate: float, budget: Budget, captured: bool = False
    ) -> None:
        self.parameters = parameters
        self.rate = rate
        self.budget = budget
        self.steps = 0
        self.seconds = 0.0
        self.average: Tensors = {name: tensor.detach().clone() for name, tensor in parameters.items()}
        self._tensors = list(parameters.values())
        self._captured = captured
        self._graph: Graph | None = None
        self._optimizer = torch.optim.AdamW(
            self._tensors,
            lr=torch.tensor(rate, device="cuda") if captured else rate,
            betas=(0.9, 0.99),
            weight_decay=0.01,
            fused=self._tensors[0].is_cuda,
            capturable=captured,
        )
        self._resumed_at = time.monotonic()

    @property
    def done(self) -> bool:
        """Whether the budget is spent."""
        return self.budget.share(self.seconds, self.steps) >= 1

    def resume_clock(self) -> None:
        """Start counting from now: what happened since the last update was not training."""
        self._resumed_at = time.monotonic()

    def update(self, compute: Loss, *inputs: torch.Tensor) -> torch.Tensor:
        """One optimiser step on `compute(*inputs)`; returns the loss, detached, valid until the next step.

        With `captured`, the whole step is recorded once as a CUDA graph: a network this small otherwise waits for the
        CPU to launch its kernels. Then every call needs inputs of the same shapes.
        """
        factor = rate_factor(self.budget.share(self.seconds, self.steps))
        for group in self._optimizer.param_groups:
            if isinstance(group["lr"], torch.Tensor):
                group["lr"].fill_(self.rate * factor)
            else:
                group["lr"] = self.rate * factor
        loss = self._replay(compute, inputs) if self._captured else self._step(compute, inputs)
        self.steps += 1
        keep = min(_LONGEST_AVERAGE, (1 + self.steps) / (10 + self.steps))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.average.values()), [tensor.detach() for tensor in self._tensors], 1 - keep)
        now = time.monotonic()
        self.seconds += now - self._resumed_at
        self._resumed_at = now
        return loss

    def _step(self, compute: Loss, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        """A gradient that is not finite counts as zero, without waiting for the device to say so."""
        self._optimizer.zero_grad(set_to_none=True)
        loss = compute(*inputs)
        loss.backward()  # type: ignore[no-untyped-call]
        for tensor in self._tensors:
            if tensor.grad is not None:
                tensor.grad.nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)
        torch.nn.utils.clip_grad_norm_(self._tensors, 1.0)
        self._optimizer.step()
        return loss.detach()

    def _replay(self, compute: Loss, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        if self._graph is None:
            self._graph = self._capture(compute, inputs)
        graph, held, loss = self._graph
        for mine, given in zip(held, inputs, strict=True):
            mine.copy_(given)
        graph.replay()
        return loss

    def _capture(self, compute: Loss, inputs: Sequence[torch.Tensor]) -> Graph:
        held = [tensor.clone() for tensor in inputs]
        # Libraries choose and set up on their first runs, which must not be captured.
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                self._step(compute, held)
        torch.cuda.current_stream().wait_stream(side)
        self._optimizer.zero_grad(set_to_none=True)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            loss = self._step(compute, held)
        return graph, held, loss

    def state(self) -> tuple[dict[str, float], dict[str, Tensors]]:
        """Counters and tensors for a checkpoint; Adam's moments are kept in bfloat16, which halves their file."""
        moments: Tensors = {}
        for name, tensor in self.parameters.items():
            for kind in ("exp_avg", "exp_avg_sq"):
                if tensor in self._optimizer.state:
                    moments[f"{name}:{kind}"] = self._optimizer.state[tensor][kind].bfloat16()
        weights: Tensors = dict(self.parameters)
        facts = {"steps": self.steps, "seconds": self.seconds}
        return facts, {"weights": weights, "average": self.average, "moments": moments}

    def restore(self, facts: dict[str, float], parts: dict[str, Tensors]) -> None:
        """Go on from what `state` gave; the learning rate follows from the counters."""
        self.steps = int(facts["steps"])
        self.seconds = facts["seconds"]
        with torch.no_grad():
            for name, tensor in self.parameters.items():
                tensor.copy_(parts["weights"][name])
                self.average[name].copy_(parts["average"][name])
                if f"{name}:exp_avg" in parts["moments"]:
                    self._optimizer.state[tensor] = {
                        "step": torch.tensor(float(self.steps), device=tensor.device if tensor.is_cuda else "cpu"),
                        "exp_avg": parts["moments"][f"{name}:exp_avg"].to(tensor.dtype),
                        "exp_avg_sq": parts["moments"][f"{name}:exp_avg_sq"].to(tensor.dtype),
                    }
        self.resume_clock()
