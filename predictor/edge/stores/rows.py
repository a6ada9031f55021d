"""Rows of `generations` and `jobs` as the structs of `core/jobs.py`, and back; structs within these are JSON."""

from collections.abc import Mapping
from typing import Any

import msgspec
from sqlalchemy import RowMapping, Table

from predictor.core.account import megapixel_steps
from predictor.core.jobs import Generation, Job, Result, Verdict
from predictor.core.problems import ProblemRecord
from predictor.core.request import GenerationRequest, ImageEncoding
from predictor.edge.stores.schema import generations, jobs

_DECODERS: dict[str, msgspec.json.Decoder[Any]] = {
    "request": msgspec.json.Decoder(GenerationRequest),
    "result": msgspec.json.Decoder(Result),
    "problem": msgspec.json.Decoder(ProblemRecord),
    "encoding": msgspec.json.Decoder(ImageEncoding),
    "verdict": msgspec.json.Decoder(Verdict),
}


def text(struct: msgspec.Struct | None) -> str | None:
    """A struct for a column of JSON."""
    return None if struct is None else msgspec.json.encode(struct).decode()


def generation_values(generation: Generation, active_key: str | None) -> dict[str, object]:
    """The row of a generation that nobody runs yet."""
    request = generation.request
    cost = {"images": request.num_images, "megapixel_steps": megapixel_steps(request)}
    return _values(generation) | cost | {"active_key": active_key}


def job_values(job: Job) -> dict[str, object]:
    """The row of a job that no connection holds."""
    values = _values(job)
    del values["generation"]
    return values | {"generation_id": job.generation.id}


def generation_of(row: RowMapping) -> Generation:
    """The generation in a row that has all columns of `generations`."""
    return Generation(**_fields(Generation, generations, row))


def job_of(row: RowMapping) -> Job:
    """The job in a row that has all columns of `jobs` and `generations`."""
    return Job(**_fields(Job, jobs, row), generation=generation_of(row))


def _values(struct: msgspec.Struct) -> dict[str, object]:
    values: Mapping[str, Any] = msgspec.structs.asdict(struct)
    return {name: text(value) if name in _DECODERS else value for name, value in values.items()}


def _fields(kind: type[msgspec.Struct], table: Table, row: RowMapping) -> dict[str, Any]:
    found = {}
    for name in kind.__struct_fields__:
        if name in table.c:
            value = row[table.c[name]]
            found[name] = value if value is None or name not in _DECODERS else _DECODERS[name].decode(value)
    return found
