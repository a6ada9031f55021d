"""What a real cluster (Kubernetes 1.34, Knative 1.21) sent of some starts, cut to the fields that tell something.

Each file is JSON lines of four watches, in the order in which they came: a list, or an event, and when it was received.

    plain      a service with one pod and its image there: 0 → 1 → 0
    capacity   the only GPU is taken; the pod is deleted while it waits, its successor gets the GPU later
    absent     an image that is nowhere
    crash      a container that ends with exit code 1 as often as it is started
"""

import functools
import json
from pathlib import Path
from typing import Any

from predictor.cluster.objects import Deployment, EndpointSlice, Event, Pod, read
from predictor.cluster.phases import Change

KINDS = {"pods": Pod, "events": Event, "deployments": Deployment, "endpointslices": EndpointSlice}
NAMES = ("plain", "capacity", "absent", "crash")


def recorded(name: str) -> list[dict[str, Any]]:
    """The lines of a recording."""
    text = (Path(__file__).parent / "recorded" / f"{name}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


@functools.cache
def changes(name: str) -> tuple[Change, ...]:
    """A recording as the core gets it."""
    found = []
    for line in recorded(name):
        kind = KINDS[line["resource"]]
        for item in line.get("listed", ()):
            found.append(Change(object=read(item, kind), received=line["received"], listed=True))
        event = line.get("event")
        if event is not None and event["type"] != "BOOKMARK":
            deleted = event["type"] == "DELETED"
            found.append(Change(object=read(event["object"], kind), received=line["received"], deleted=deleted))
    return tuple(found)
