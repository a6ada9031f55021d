"""A scenario and a seed → every request of a run, with its moment; pure and drawn before anything is sent.

Requests with one *identity* ask for the same pictures: prompt, seed, size and steps are equal. The first `pool` ones of
a cycle are asked for again on purpose, so that pictures can be compared; all others are asked for once.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final, TypeVar

import msgspec
import numpy as np

from loadtest.arrivals import Replay, schedule, window
from loadtest.scenarios import Scenario
from predictor.lab.sim.trace import read

# What the demo model has learned to draw; other models draw something of it, too.
PROMPTS: Final = tuple(
    f"a {colour} {shape} on a {ground} background"
    for colour, ground in (("red", "blue"), ("green", "white"), ("yellow", "black"), ("blue", "yellow"))
    for shape in ("circle", "square", "triangle")
)
T = TypeVar("T")
_SEEDS: Final = 2**32
_MOST: Final = 10_000_000  # identities of a cycle


class Shot(msgspec.Struct, frozen=True, array_like=True):
    """One request of the schedule."""

    index: int
    at: float  # intended start, seconds from the run's start
    target: str  # `a`, or `b` in a comparison
    identity: int
    repeated: bool  # asked for more than once in this run
    prompt: str
    seed: int
    steps: int
    size: str
    images: int


def shots(
    scenario: Scenario,
    seed: int,
    cycle: int = 0,
    targets: Sequence[str] = ("a",),
    prompts: Sequence[str] = PROMPTS,
) -> list[Shot]:
    """The requests of one cycle.

    Args:
        scenario: what and when.
        seed: of the run. Pictures are new to every cache as long as no other run had it.
        cycle: from 0; each draws its own schedule and asks for its own pictures.
        targets: who is asked. With two, each pair of requests goes to both in an order drawn by lot; of a scenario from
            zero each cycle belongs to one of them, in turn.
        prompts: to choose from.

    Raises:
        ValueError: nothing would be sent, or the trace cannot be read.
    """
    arrivals, mix = scenario.arrivals, scenario.mix
    at = schedule(arrivals, seed + cycle)
    count = len(at)
    chance = np.random.default_rng([seed, cycle, 1])
    # A cycle from zero asks for pictures of its own: one that a cache knows would wake nobody.
    first = cycle * _MOST
    fresh = first + mix.pool + np.arange(count)
    identity = np.where(chance.random(count) < mix.repeats, first + chance.integers(mix.pool, size=count), fresh)
    who = [int(number) for number in identity]

    def chosen(values: Sequence[T]) -> list[T]:
        picks = chance.integers(len(values), size=count)
        # Whoever asks for the same picture must ask for all of it.
        return [
            values[int(pick) if name - first >= mix.pool else name % len(values)]
            for pick, name in zip(picks, who, strict=True)
        ]

    sizes, steps, images = chosen(mix.sizes), chosen(mix.steps), chosen(mix.images)
    if isinstance(arrivals, Replay):
        trace = read(Path(arrivals.path))
        _, part = window(arrivals, trace)
        images, steps = trace.images[part].tolist(), trace.steps[part].tolist()
    places = _targets(scenario, targets, cycle, count, chance)
    return [
        Shot(
            index=number,
            at=float(at[number]),
            target=places[number],
            identity=name,
            repeated=name - first < mix.pool,
            prompt=prompts[name % len(prompts)],
            seed=(seed * 1_000_003 + name) % _SEEDS,
            steps=steps[number],
            size=sizes[number],
            images=images[number],
        )
        for number, name in enumerate(who)
    ]


def _targets(
    scenario: Scenario, targets: Sequence[str], cycle: int, count: int, chance: np.random.Generator
) -> list[str]:
    if len(targets) == 1 or scenario.from_zero:
        return [targets[cycle % len(targets)]] * count
    order: list[str] = []
    while len(order) < count:
        order += [targets[place] for place in chance.permutation(len(targets))]
    return order[:count]
