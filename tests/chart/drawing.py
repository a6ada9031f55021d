"""Values drawn from the chart's own schema: everything that it lets through, contradictions included."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from hypothesis import strategies as st

from tests.chart.rendering import CHART

SCHEMA = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
Path = tuple[str, ...]
# What people write, and what YAML, templates and labels trip over.
LETTERS = st.sampled_from("abcXYZ019 -_./:=*&#%@!|>{}[]\"'`~$\n\tü")
WORDS = st.sampled_from(
    ["true", "null", "on", "y", "0", "1e3", "0x10", "1_000", "2026-11-23", "=", "~", "{{ .Values }}"]
)
TEXTS = st.text(LETTERS, max_size=12) | WORDS


def values() -> st.SearchStrategy[dict[str, Any]]:
    """A handful of values at places of the schema; sometimes with models of their own."""
    few = st.lists(st.sampled_from(PLACES).flatmap(_at), min_size=1, max_size=4).map(_over)
    models = st.lists(_model(), min_size=1, max_size=3, unique_by=lambda model: model["name"])
    return st.builds(lambda one, two: _over([one, two]), few, st.just({}) | st.builds(lambda m: {"models": m}, models))


def drawn(schema: Mapping[str, Any]) -> st.SearchStrategy[Any]:
    """Anything that fits a schema, as far as this one uses JSON Schema."""
    schema = _resolved(schema)
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    kinds = schema.get("type", "object")
    fitting = st.one_of(*(_of_kind(kind, schema) for kind in ([kinds] if isinstance(kinds, str) else kinds)))
    if unwanted := schema.get("not", {}).get("pattern"):
        fitting = fitting.filter(lambda text: not re.search(unwanted, text))
    return fitting


def places(schema: Mapping[str, Any], path: Path = ()) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    """Every value that the schema knows but for models and Helm's own: its path and its schema."""
    for name, part in _resolved(schema).get("properties", {}).items():
        if path or name not in ("models", "global"):
            yield (*path, name), part
            yield from places(part, (*path, name))


def _of_kind(kind: str, schema: Mapping[str, Any]) -> st.SearchStrategy[Any]:
    match kind:
        case "null":
            return st.none()
        case "boolean":
            return st.booleans()
        case "integer":
            return st.integers(schema.get("minimum", -(2**31)), schema.get("maximum", 2**53))
        case "number":
            low = schema.get("minimum", schema.get("exclusiveMinimum", -1e9))
            above = "exclusiveMinimum" in schema
            return st.floats(low, schema.get("maximum", 1e9), exclude_min=above) | st.integers(1, 5)
        case "string":
            return _texts(schema)
        case "array":
            return st.lists(drawn(schema.get("items", {})), min_size=schema.get("minItems", 0), max_size=2)
        case "object":
            return _maps(schema)
    raise AssertionError(f"{kind}: the schema did not use this before")


def _texts(schema: Mapping[str, Any]) -> st.SearchStrategy[str]:
    shortest, longest = schema.get("minLength", 0), schema.get("maxLength", 10**6)
    # Go's $ is the end of the text; Python's also comes before a last line break.
    if pattern := schema.get("pattern"):
        fits = re.compile(pattern.replace("$", r"\Z"))
        texts = st.from_regex(fits, alphabet=st.characters(codec="ascii")) | WORDS.filter(fits.search)
    else:
        texts = TEXTS
    return texts.filter(lambda text: shortest <= len(text) <= longest)


def _maps(schema: Mapping[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    properties = {name: drawn(part) for name, part in schema.get("properties", {}).items()}
    needed = {name: properties.pop(name) for name in schema.get("required", ())}
    known = st.fixed_dictionaries(needed, optional=properties)
    free = schema.get("additionalProperties")
    if isinstance(free, Mapping):
        keys = drawn({"type": "string"} | schema.get("propertyNames", {}))
        return st.builds(lambda one, two: {**two, **one}, known, st.dictionaries(keys, drawn(free), max_size=2))
    return known


@st.composite
def _model(draw: st.DrawFn) -> dict[str, Any]:
    """A model that has a name and a source, and a few of the other values."""
    properties = MODEL["properties"]
    others = sorted(properties.keys() - {"name", "source", "predictor", "edge"})
    chosen = draw(st.lists(st.sampled_from(others), max_size=3, unique=True))
    made = {key: draw(drawn(properties[key])) for key in ("name", "source", *chosen)}
    own = [place for place in PLACES if place[0][0] in ("predictor", "edge") and len(place[0]) > 1]
    return _over([made, *draw(st.lists(st.sampled_from(own).flatmap(_at), max_size=2))])


def _at(place: tuple[Path, Mapping[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    path, schema = place

    def nested(value: Any) -> dict[str, Any]:
        for name in reversed(path):
            value = {name: value}
        return dict(value)

    return drawn(schema).map(nested)


def _over(many: list[dict[str, Any]]) -> dict[str, Any]:
    """The maps over each other, the last on top."""
    made: dict[str, Any] = {}
    for one in many:
        for key, value in one.items():
            both = isinstance(value, dict) and isinstance(made.get(key), dict)
            made[key] = _over([made[key], value]) if both else value
    return made


def _resolved(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    reference = schema.get("$ref")
    return _resolved(SCHEMA["definitions"][reference.rpartition("/")[2]]) if reference else schema


PLACES = list(places(SCHEMA))
MODEL = _resolved(SCHEMA["properties"]["models"]["items"])
