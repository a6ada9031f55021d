"""Jobs as their callers see them; pure."""

from typing import Any

import msgspec

from predictor import __version__
from predictor.core.account import megapixel_steps
from predictor.core.fingerprint import NUMERICS
from predictor.core.jobs import Job
from predictor.core.openai import timing
from predictor.core.problems import ProblemRecord
from predictor.core.request import Capabilities


def job_view(job: Job, model: str, *, links: list[str] | None = None, eta: float | None = None) -> dict[str, Any]:
    """The job as JSON; `links` in the order of its images, `eta` in seconds from now while it is active."""
    generation, result = job.generation, job.generation.result
    images = []
    if job.state == "done" and result is not None:
        for number, image in enumerate(result.images):
            one: dict[str, Any] = {"seed": image.seed, "format": job.encoding.format}
            if links is not None:
                one["url"] = links[number]
            images.append(one)
    view: dict[str, Any] = {
        "id": job.id,
        "object": "job",
        "state": job.state,
        "kind": job.kind,
        "created": job.created,
        "finished": job.finished,
        "model": model,
        "request": generation.request,
        "seeds": generation.request.seeds,
        "cached": job.cached,
        "joined": job.joined,
        "images": images,
        "error": _problem(job.problem),
        "usage": usage(job),
        "timing": result.timing if result else None,
    }
    if job.replay_of is not None:
        view["replay_of"] = job.replay_of
    if job.end_user is not None:
        view["user"] = job.end_user
    if job.state == "active" and eta is not None:
        view["eta"] = round(eta, 2)
    return view


def usage(job: Job) -> dict[str, Any]:
    """What the job cost its key: nothing where another's work answered it."""
    result = job.generation.result
    paid = job.state == "done" and not job.cached and not job.joined and result is not None
    return {
        "images": len(result.images) if result is not None and job.state == "done" else 0,
        "megapixel_steps": megapixel_steps(job.generation.request) if paid else 0.0,
        "gpu_seconds": result.gpu_seconds if paid and result is not None else 0.0,
        "cold_start": bool(result is not None and result.cold_start and not job.cached),
    }


def manifest(job: Job, model: str) -> dict[str, Any]:
    """All that is needed to make the job's images again."""
    generation, result = job.generation, job.generation.result
    return {
        "job": job.id,
        "model": model,
        "revision": generation.revision,
        "numerics": NUMERICS,
        "sdzero": __version__,
        "request": generation.request,
        "fingerprint": generation.fingerprint,
        "encoding": job.encoding,
        "images": [{"seed": image.seed, "bytes": image.bytes, "name": image.name} for image in result.images]
        if result
        else [],
    }


def answer_headers(job: Job, now: float) -> dict[str, str]:
    """What the answer of a job that is done says beside its body, in every dialect."""
    generation = job.generation
    assert generation.result is not None
    headers = {"x-sdzero-job": job.id, "ETag": f'"{generation.fingerprint}"'}
    if job.cached:
        return headers | {"x-cache": "hit", "Age": str(max(0, int(now - (generation.finished or now))))}
    return headers | {
        "x-cache": "joined" if job.joined else "miss",
        "Server-Timing": timing(generation.result),
        "x-sdzero-cold-start": str(generation.result.cold_start).lower(),
    }


def limits(capabilities: Capabilities) -> dict[str, Any]:
    """What the model can do, without what is needed to count tokens: half a megabyte that is no caller's business."""
    shown = msgspec.structs.asdict(capabilities)
    del shown["tokenizers"]
    return shown


def announcement(job: Job) -> bytes:
    """The body of the job's webhook: the same at every try, so no link that ends is in it."""
    view = job_view(job, job.generation.revision)
    del view["model"]
    return msgspec.json.encode({"type": f"job.{job.state}", "timestamp": job.finished, "data": view})


def _problem(problem: ProblemRecord | None) -> dict[str, Any] | None:
    if problem is None:
        return None
    return {"message": problem.message, "code": problem.code, "param": problem.field}
