"""Objects with one thing wrong."""

import copy

from tests.chart.rendering import Object

ABSENT = object()


def changed(one: Object, place: str, value: object) -> Object:
    """A copy with `value` at a place such as spec.containers.0.image; ABSENT removes what is there."""
    made = copy.deepcopy(one)
    *path, last = place.split(".")
    part = made
    for step in path:
        part = part[int(step)] if isinstance(part, list) else part.setdefault(step, {})
    key = int(last) if isinstance(part, list) else last
    if value is ABSENT:
        del part[key]
    else:
        part[key] = value
    return made
