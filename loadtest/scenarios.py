"""The named scenarios: what is asked for, when, and from which state. Data; a field can be changed by its name."""

from collections.abc import Iterable
from typing import Annotated, Any, Final

import msgspec

from loadtest.arrivals import Arrivals, Burst, Count, Diurnal, Poisson, Positive, Ramp, Replay, Wake

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class Mix(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What requests ask for. Each draws size, steps and images on its own, evenly from what is listed."""

    sizes: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)] = ("auto",)  # `auto` or WIDTHxHEIGHT
    steps: Annotated[tuple[int, ...], msgspec.Meta(min_length=1)] = (20,)
    images: Annotated[tuple[int, ...], msgspec.Meta(min_length=1)] = (1,)
    repeats: Share = 0.0  # of the requests ask for one of `pool` pictures that others ask for as well
    pool: Count = 8


class Scenario(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One kind of run."""

    about: str
    arrivals: Arrivals
    mix: Mix = Mix()
    from_zero: bool = False  # each cycle begins when no replica and no pod is left
    cycles: Count = 1
    warm_up: Annotated[int, msgspec.Meta(ge=0)] = 0  # requests before the clock starts, one at a time, not counted
    timeout: Positive = 600.0  # seconds; longer than any cold start, or the slow ones would look like failures
    retries: Annotated[int, msgspec.Meta(ge=0)] = 0  # of a request that was not answered
    backoff: Positive = 1.0  # seconds before the next attempt, whatever Retry-After says
    idle: Positive = 120.0  # seconds without a request before a cycle, where nobody can see whether pods are gone


SCENARIOS: Final[dict[str, Scenario]] = {
    "cold-once": Scenario(
        about="one request to a service at zero, again and again: independent cold starts",
        arrivals=Burst(size=1),
        from_zero=True,
        cycles=30,
    ),
    "burst-from-zero": Scenario(
        about="16 requests at one moment to a service at zero",
        arrivals=Burst(size=16),
        from_zero=True,
        cycles=10,
    ),
    "cold-concurrency": Scenario(
        about="one request wakes the service, and others keep coming while it starts",
        arrivals=Wake(rate=1.0, seconds=30.0),
        mix=Mix(repeats=0.2),
        from_zero=True,
        cycles=10,
    ),
    "warm": Scenario(
        about="a steady stream to a service that is awake",
        arrivals=Poisson(rate=0.5, seconds=300.0),
        mix=Mix(repeats=0.1),
        warm_up=2,
    ),
    "ramp": Scenario(
        about="more and more requests until it saturates: throughput against latency",
        arrivals=Ramp(first=0.25, last=4.0, steps=8, seconds=480.0),
        warm_up=2,
    ),
    "diurnal": Scenario(
        about="a day in 20 minutes: nights are quiet enough to sleep",
        arrivals=Diurnal(rate=0.1, peak=2.0, day=1200.0, days=1.0),
        mix=Mix(repeats=0.1),
    ),
    "replay": Scenario(
        about="a recorded trace, compressed; its requests' own images and steps",
        arrivals=Replay(path="trace.csv", factor=60.0, seconds=600.0),
    ),
    "mixed": Scenario(
        about="sizes, steps and numbers of images, all mixed",
        arrivals=Poisson(rate=0.5, seconds=300.0),
        mix=Mix(sizes=("64x64", "128x128", "256x256"), steps=(4, 10, 20, 40), images=(1, 2, 4), repeats=0.1),
        warm_up=2,
    ),
    "cache": Scenario(
        about="nine of ten requests ask for one of eight pictures: the cache's and the joiner's work",
        arrivals=Poisson(rate=5.0, seconds=120.0),
        mix=Mix(repeats=0.9),
        warm_up=1,
    ),
    "retry-storm": Scenario(
        about="impatient clients: give up after 2 s and ask again at once, up to five times, from zero",
        arrivals=Poisson(rate=2.0, seconds=60.0),
        from_zero=True,
        timeout=2.0,
        retries=5,
        backoff=0.1,
    ),
    "soak": Scenario(
        about="hours of a light stream: leaks, drifts, rare faults",
        arrivals=Poisson(rate=0.2, seconds=4 * 3600.0),
        mix=Mix(sizes=("64x64", "128x128"), steps=(4, 20), repeats=0.2),
        warm_up=1,
    ),
}


def changed(scenario: Scenario, settings: Iterable[str]) -> Scenario:
    """The scenario with fields replaced: `cycles=5`, `arrivals.rate=2`, `mix.sizes=64x64,128x128`.

    Raises:
        ValueError: naming the field, what came and what is allowed.
    """
    fields: dict[str, Any] = msgspec.to_builtins(scenario)
    for setting in settings:
        path, equals, text = setting.partition("=")
        *groups, name = path.split(".")
        inner: Any = fields
        for group in groups:
            inner = inner.get(group) if isinstance(inner, dict) else None
        if not equals or not isinstance(inner, dict) or name not in inner or isinstance(inner[name], dict):
            raise ValueError(f"{setting}: allowed: FIELD=VALUE with one of {', '.join(_names(fields))}")
        inner[name] = text.split(",") if isinstance(inner[name], (list, tuple)) else text
    try:
        return msgspec.convert(fields, Scenario, strict=False)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from None


def _names(fields: dict[str, Any], prefix: str = "") -> list[str]:
    found = []
    for name, value in fields.items():
        if isinstance(value, dict):
            found += _names(value, f"{prefix}{name}.")
        elif name not in ("about", "kind"):
            found.append(prefix + name)
    return found
