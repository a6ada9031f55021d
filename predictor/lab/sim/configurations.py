"""The ways to serve that a simulation compares, and how a setting of theirs is named and read."""

import dataclasses
import typing
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from predictor.lab.sim.kpa import Autoscaling
from predictor.lab.sim.measured import ENDED_DRAIN, LEAN, PLAIN
from predictor.lab.sim.world import Configuration

# The chart's defaults, but for more than one pod.
PRODUCT: Final = Autoscaling(container_concurrency=16, target_utilization_percentage=100, window=30, max_scale=4)


def always_on() -> Configuration:
    """A dedicated GPU server: the plain handler, one pod that never ends."""
    autoscaling = Autoscaling(container_concurrency=1, min_scale=1, max_scale=1)
    return Configuration(name="always-on", predictor=PLAIN, edge=None, autoscaling=autoscaling)


def knative_plain() -> Configuration:
    """The plain handler, one request at a time, and nothing of Knative changed."""
    autoscaling = Autoscaling(container_concurrency=1)
    return Configuration(name="knative-plain", predictor=PLAIN, edge=None, autoscaling=autoscaling)


def knative_plain_one() -> Configuration:
    """The same, held to one pod."""
    autoscaling = Autoscaling(container_concurrency=1, max_scale=1)
    return Configuration(name="knative-plain-one", predictor=PLAIN, edge=None, autoscaling=autoscaling)


def sdzero() -> Configuration:
    """This product: the lean engine, a batch of requests for each pod, a shorter window."""
    return Configuration(name="sdzero", predictor=LEAN, autoscaling=PRODUCT)


def sdzero_short() -> Configuration:
    """The same with 15 s for a request, all told, which also ends a pod's termination after 15 s instead of 30."""
    return Configuration(name="sdzero-15s", predictor=LEAN, autoscaling=replace(PRODUCT, timeout_seconds=15))


def sdzero_ended_drains() -> Configuration:
    """As `sdzero`, and the predictor ends queue-proxy's drain once it is idle (`--end-drain`)."""
    return Configuration(name="sdzero-ended-drains", predictor=LEAN, autoscaling=PRODUCT, drain=ENDED_DRAIN)


def sdzero_sleeping() -> Configuration:
    """The engine ends after a second without work (`--sleep-after-seconds 1`), and the pod stays for a minute."""
    autoscaling = replace(PRODUCT, window=60)
    return Configuration(name="sdzero-sleeping", predictor=LEAN, autoscaling=autoscaling, engine_sleeps_after=1.0)


CONFIGURATIONS: Final[dict[str, Callable[[], Configuration]]] = {
    "always-on": always_on,
    "knative-plain": knative_plain,
    "knative-plain-one": knative_plain_one,
    "sdzero": sdzero,
    "sdzero-15s": sdzero_short,
    "sdzero-ended-drains": sdzero_ended_drains,
    "sdzero-sleeping": sdzero_sleeping,
}


def changed(autoscaling: Autoscaling, text: str) -> Autoscaling:
    """`autoscaling` with one setting read from `NAME=VALUE`; dashes and underscores are the same.

    Raises:
        ValueError: naming the setting, what came and what is allowed.
    """
    name, _, value = text.partition("=")
    name = name.replace("-", "_")
    kinds = typing.get_type_hints(Autoscaling)
    if name not in kinds:
        raise ValueError(f"{text}: no setting {name!r}; allowed: {', '.join(kinds)}")
    kind = kinds[name]
    try:
        read: Any = _boolean(value) if kind is bool else int(value) if kind is int else _number_or_word(value, kind)
    except ValueError:
        raise ValueError(f"{text}: got {value!r}; allowed: {getattr(kind, '__name__', kind)}") from None
    return replace(autoscaling, **{name: read})


def _boolean(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError(text)
    return text == "true"


def _number_or_word(text: str, kind: Any) -> Any:
    words = typing.get_args(kind)
    if words and all(isinstance(word, str) for word in words):
        if text not in words:
            raise ValueError(text)
        return text
    return float(text)


def told(autoscaling: Autoscaling) -> dict[str, Any]:
    """The settings that differ from Knative's defaults."""
    fields = dataclasses.fields(Autoscaling)
    return {f.name: getattr(autoscaling, f.name) for f in fields if getattr(autoscaling, f.name) != f.default}
