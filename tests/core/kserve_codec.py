"""KServe's own serialisers, in a process of their own.

They and tritonclient.grpc register the same protobuf names, and cannot be imported together; so nothing here is
imported before it is called.
"""

import json
from typing import Any

import numpy as np


def send(arrays: dict[str, tuple[str, np.ndarray[Any, Any]]], binary: list[str]) -> tuple[bytes, int | None]:
    """What its client sends for tensors of (datatype, array): body, and length of the JSON header if there is one."""
    import kserve
    from kserve.protocol.infer_type import RequestedOutput

    inputs = []
    for name, (datatype, array) in arrays.items():
        item = kserve.InferInput(name, [1], datatype)
        item.set_data_from_numpy(array, binary_data=name in binary)
        inputs.append(item)
    output = RequestedOutput("image", {"binary_data": True})
    sent, header = kserve.InferRequest("sd", inputs, request_id="q", request_outputs=[output]).to_rest()
    return sent if isinstance(sent, bytes) else json.dumps(sent).encode(), header


def receive(content: bytes, header: int | None) -> dict[str, np.ndarray[Any, Any]]:
    """What its client reads out of an answer."""
    import kserve

    read = (
        kserve.InferResponse.from_bytes(content, header)
        if header
        else kserve.InferResponse.from_rest(json.loads(content))
    )
    return {output.name: output.as_numpy() for output in read.outputs}


def metadata(body: bytes) -> tuple[str, list[str]]:
    """Model name and names of the inputs, as its client reads them."""
    from kserve.protocol.rest.v2_datamodels import ModelMetadataResponse

    read = ModelMetadataResponse.model_validate_json(body)
    return read.name, [item.name for item in read.inputs]
