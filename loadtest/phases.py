"""Where the seconds of one cold start went: client, cluster and product joined into parts that add up; pure.

Three clocks take part. The client's is the ruler: everything is in its seconds. The cluster's moments are those that
`predictor.cluster` makes of watch events, each with the time of its reception on the client's machine. Of the product
only durations are used, so its clock need not agree with anybody's.

     intended  sent        decision … started                          answer
        │ late │ decision … │ start      │ process │ first_request │ making │
        └──────┴── cluster ─┴── product ─┴─────────┴───────────────┴────────┴─ unexplained: what is left

The parts always add up to the whole, because what nobody reports is a part of its own. It is negative where reports
overlap: Kubernetes says only to the second when a container ran.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Final, Literal

import msgspec

from loadtest.samples import Sample

Source = Literal["client", "cluster", "product", "nobody"]
UNEXPLAINED: Final = "unexplained"
# The server's phases that follow each other without a gap, from its process's start until it can take a request.
PROCESS: Final = ("server-interpreter", "server-imports", "server-assembled", "server-engine_ready")
FIRST_REQUEST: Final = "server-first_request"
_COLD: Final = "cold-"
_METRIC: Final = re.compile(r"([^\s;,]+);dur=(\d+(?:\.\d+)?)")


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """One part of a cold start. Parts follow each other."""

    name: str
    seconds: float
    source: Source


class Moment(msgspec.Struct, frozen=True, kw_only=True):
    """What a watch told, in seconds from the run's start: received by the client, reported by the cluster."""

    name: str
    at: float  # the best guess from both, and from the order of a pod's life
    received: float
    reported: float | None = None
    text: str = ""


class State(msgspec.Struct, frozen=True, kw_only=True):
    """What was warm when the cycle began; `unknown` where nobody told."""

    node: str = "unknown"
    image: Literal["pulled", "present", "unknown"] = "unknown"
    page_cache: Literal["warm", "dropped", "unknown"] = "unknown"


class ColdStart(msgspec.Struct, frozen=True, kw_only=True):
    """One cold start in parts, with what they were made of."""

    cycle: int
    target: str
    state: State
    seconds: float  # of the request that woke the service, from its intended start
    parts: list[Part]
    moments: list[Moment] = []
    told: dict[str, float] = {}  # the product's own phases, PROCESS-PHASE; they overlap
    missing: list[str] = []

    def part(self, name: str) -> float:
        """Seconds of a part; 0 if there is none."""
        return sum(part.seconds for part in self.parts if part.name == name)


def timing(text: str) -> dict[str, float]:
    """A `Server-Timing` value → seconds by name."""
    return {name: float(milliseconds) / 1000 for name, milliseconds in _METRIC.findall(text)}


def cold_phases(text: str) -> dict[str, float]:
    """The phases of a start in a `Server-Timing` value, PROCESS-PHASE → seconds."""
    return {name.removeprefix(_COLD): value for name, value in timing(text).items() if name.startswith(_COLD)}


def join(
    woke: Sample,
    *,
    moments: Sequence[Moment] = (),
    told: Mapping[str, float] | None = None,
    page_cache: Literal["warm", "dropped", "unknown"] = "unknown",
) -> ColdStart:
    """Join what is known of one cold start.

    Args:
        woke: the request that woke the service.
        moments: of the pod that answered, in the order of its life; empty without access to the cluster.
        told: the product's phases where they were asked for elsewhere; by default those in the answer.
        page_cache: what the caller knows of it.
    """
    product = dict(cold_phases(woke.server_timing) if told is None else told)
    stages = timing(woke.server_timing)
    parts: list[Part] = []
    missing: list[str] = []

    def add(name: str, seconds: float, source: Source) -> None:
        parts.append(Part(name=name, seconds=seconds, source=source))

    add("late", woke.lateness, "client")
    # After `started` only the product knows what happens in the pod; readiness is told by both, to the second by one.
    seen = [moment for moment in moments if moment.name not in ("ready", "endpoint")]
    before = woke.sent
    for moment in seen:
        add(_CLUSTER.get(moment.name, moment.name), moment.at - before, "cluster")
        before = moment.at
    if not seen:
        missing.append("the cluster's view: decision, scheduling, image and container are in `unexplained`")
    if all(name in product for name in PROCESS):
        add("process", sum(product[name] for name in PROCESS), "product")
        if FIRST_REQUEST in product:
            add("first_request", product[FIRST_REQUEST], "product")
    else:
        missing.append("the product's view: imports, weights and warm-up are in `unexplained`")
    if "total" in stages:
        add("making", stages["total"], "product")
    else:
        missing.append("the stages of the request: making the picture is in `unexplained`")
    add(UNEXPLAINED, woke.latency - sum(part.seconds for part in parts), "nobody")
    return ColdStart(
        cycle=woke.cycle,
        target=woke.target,
        state=State(node=_node(moments), image=_image(moments), page_cache=page_cache),
        seconds=woke.latency,
        parts=parts,
        moments=list(moments),
        told=product,
        missing=missing,
    )


# A moment ends the part before it.
_CLUSTER: Final = {
    "decision": "decision",  # gateway, edge, activator, autoscaler
    "pod": "pod",
    "scheduled": "schedule",
    "sandbox": "sandbox",
    "initialized": "init",
    "pulled": "pull",
    "created": "create",
    "started": "start",
}


def _node(moments: Sequence[Moment]) -> str:
    text = next((moment.text for moment in moments if moment.name == "scheduled"), "")
    # Which node it was matters, its name does not: a report is shown to others.
    return "known" if text.startswith("on ") else "unknown"


def _image(moments: Sequence[Moment]) -> Literal["pulled", "present", "unknown"]:
    text = next((moment.text for moment in moments if moment.name == "pulled"), None)
    if text is None:
        return "unknown"
    return "present" if "already present" in text else "pulled"
