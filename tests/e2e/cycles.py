"""0 → 1 → 0, measured: a request to a service that has no pod, and when what happened on the way to its first byte.

Moments are seconds after the request was sent. The client's own and those of watched objects are on the client's clock;
`scheduled`, `proxy_started` and `started` are on their node's, from the nanoseconds in the names of events. Where
client and cluster are different machines, `clock_room` shows how far their clocks can be trusted.
"""

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from tests.e2e.asking import Answer
from tests.e2e.cluster import Object
from tests.e2e.sightings import Sightings, stamp

MOMENTS = ("decided", "created", "scheduled", "proxy_started", "started", "first_byte", "ended")
AFTERWARDS = 5.0  # seconds after an answer in which more pods would be part of its start
PROXY = "queue-proxy"


@dataclass(frozen=True)
class Side:
    """One service to be woken; `service` is the Knative service whose pod starts."""

    name: str
    namespace: str
    service: str
    container: str
    ask: Callable[[int], Answer]  # by seed
    check: Callable[[Answer], None]  # the answer is right


@dataclass(frozen=True)
class ColdStart:
    """One of them, from a request at zero to its answer.

    `pod_share` is what the pod itself needs: container started → first byte at the client. `phases` is what the service
    says of its own start, in seconds, where it does.
    """

    side: str
    seed: int
    moments: dict[str, float]
    phases: dict[str, float]
    wrong: str = ""  # what is wrong with the answer

    @property
    def total(self) -> float:
        """Seconds to the first byte."""
        return self.moments["first_byte"]

    @property
    def pod_share(self) -> float:
        return self.moments["first_byte"] - self.moments["started"]


def cold_start(side: Side, seen: Sightings, seed: int, answer: Answer) -> ColdStart:
    """What was seen of a start, told after its pod has gone: by then all of it has arrived."""
    woken = [one for one in seen.of(side.service, since=answer.sent) if one.at < answer.ended + AFTERWARDS]
    (pod,) = {one.name for one in woken if one.kind == "Pod"}
    at = {
        "decided": next(one.at for one in woken if one.kind == "Deployment" and one.object["spec"].get("replicas")),
        "created": next(one.at for one in woken if one.name == pod),
        "scheduled": stamp(event_of(seen, pod, "Scheduled")),
        "proxy_started": stamp(event_of(seen, pod, "Started", PROXY)),
        "started": stamp(event_of(seen, pod, "Started", side.container)),
        "first_byte": answer.first_byte,
        "ended": answer.ended,
    }
    moments = {name: round(at[name] - answer.sent, 4) for name in MOMENTS}
    try:
        side.check(answer)
    except AssertionError as wrong:
        return ColdStart(side.name, seed, moments, server_timing(answer), str(wrong))
    return ColdStart(side.name, seed, moments, server_timing(answer))


def event_of(seen: Sightings, pod: str, reason: str, container: str | None = None) -> Object:
    """The event of a pod, or of one of its containers."""
    for event in seen.events(pod):
        field = event["involvedObject"].get("fieldPath", "")
        if event["reason"] == reason and (container is None or field == f"spec.containers{{{container}}}"):
            return event
    raise AssertionError(f"no event {reason} of {pod}, container {container}")


def server_timing(answer: Answer) -> dict[str, float]:
    """The header Server-Timing as seconds by name."""
    found = {}
    for entry in filter(None, answer.headers.get("Server-Timing", "").split(",")):
        name, *parameters = (part.strip() for part in entry.split(";"))
        for parameter in parameters:
            if parameter.startswith("dur="):
                found[name] = round(float(parameter.removeprefix("dur=")) / 1000, 4)
    return found


def rounds(sides: Sequence[Side], seen: Sightings, count: int) -> Iterator[ColdStart]:
    """`count` cold starts of each side, in turn; a round begins and ends with all of them at zero."""
    for side in sides:
        seen.wait_for_zero(side.service)
    for number in range(count):
        # Who is first in a round finds the machine idle; so they take turns in that as well.
        turn = number % len(sides)
        answers = [(side, side.ask(number + 1)) for side in (*sides[turn:], *sides[:turn])]
        for side in sides:
            seen.wait_for_zero(side.service)
        for side, answer in answers:
            yield cold_start(side, seen, number + 1, answer)


def spread(samples: Sequence[float]) -> dict[str, float]:
    """Median, quartiles and ends, in the samples' unit."""
    low, median, high = statistics.quantiles(samples, method="inclusive") if len(samples) > 1 else [samples[0]] * 3
    ends = {"least": min(samples), "q1": low, "median": median, "q3": high, "most": max(samples)}
    return {name: round(value, 4) for name, value in ends.items()}


def clock_room(seen: Sightings) -> float:
    """The least seconds from an event's stamp to its sighting; a negative one says that clocks differ by so much."""
    rooms = [one.at - stamp(one.object) for one in seen.history if one.kind == "Event" and one.change == "ADDED"]
    return round(min(rooms), 4)
