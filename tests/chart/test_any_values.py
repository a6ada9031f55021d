"""Whatever the values: objects that a cluster takes, or a refusal in words. Never a broken manifest, never a crash."""

import re
from typing import Any

from hypothesis import HealthCheck, given, settings

from tests.chart.drawing import values
from tests.chart.projection import services, workloads
from tests.chart.rendering import Object, Refused, identity, named, template
from tests.chart.schemas import errors

IN_WORDS = re.compile(r"; allowed: |don't meet the specifications of the schema")


def rendered(given: dict[str, Any]) -> list[Object]:
    """The objects, or none where the values are refused in words.

    Raises:
        Refused: in others, which is how Helm tells of a template that breaks.
    """
    try:
        return template(4, given)
    except Refused as refused:
        if not IN_WORDS.search(str(refused)):
            raise
        return []


# The same values each time: nobody's change is held up by what it did not touch.
@settings(max_examples=80, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(values())
def test_any_values_make_valid_objects_or_a_refusal_in_words(parts, given):
    objects = rendered(given)
    assert {identity(one): found for one in objects if (found := errors(one))} == {}
    made = [service for isvc in named(objects, "InferenceService") for service in services(isvc, objects)]
    made += workloads(objects)
    assert {identity(one): found for one in made if (found := errors(one))} == {}
