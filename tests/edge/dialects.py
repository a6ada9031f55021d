"""One request in every dialect that asks for pictures, and what all of them say of a refusal."""

SMALL = {"prompt": "a red circle on a blue background", "size": "64x64", "num_inference_steps": 2}
FLAT = {"prompt": "a green star", "height": 64, "width": 64, "steps": 2}  # of v2
OPENAI, JOBS = "/v1/images/generations", "/v1/jobs"
INFER, GENERATE, STREAM = (f"/v2/models/shapes/{name}" for name in ("infer", "generate", "generate_stream"))
ASKING = (OPENAI, JOBS, INFER, GENERATE, STREAM)


def tensors(**parameters):
    prompt = {"name": "prompt", "shape": [1], "datatype": "BYTES", "data": ["a green star"]}
    return {"inputs": [prompt], "parameters": {"height": 64, "width": 64, "steps": 2} | parameters}


def tensors_of(fields):
    inputs = [{"name": name, "shape": [1], "datatype": "BYTES", "data": [text]} for name, text in fields.items()]
    return tensors() | {"inputs": inputs}


def body(path, **fields):
    """A request that the path's dialect would take, with these fields as well."""
    if path == INFER:
        return tensors(**fields)
    return (FLAT if path.startswith("/v2") else SMALL) | fields


def problem(reply):
    """Code and message, whatever the dialect."""
    said = reply.json()
    error = said["error"]
    return (error["code"], error["message"]) if isinstance(error, dict) else (said["code"], error)


def refused(reply, code):
    assert (reply.status_code, problem(reply)[0]) == (429, code), reply.text
    assert 1 <= int(reply.headers["retry-after"]) <= 120
    assert reply.headers["x-should-retry"] == "true"
