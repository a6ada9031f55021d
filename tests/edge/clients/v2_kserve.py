"""KServe's own client against an edge, in a process of its own.

It and tritonclient.grpc register the same protobuf names, and cannot be imported together.

    v2_kserve.py URL KEY      prints what came back, as JSON
"""

import asyncio
import json
import sys

import httpx
import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest
from kserve.inference_client import RESTConfig

NAME = "shapes"
PARAMETERS = {"seed": 21, "steps": 4, "height": 64, "width": 64}


async def infer(client: InferenceRESTClient, url: str, headers: dict[str, str], *, binary: bool) -> dict[str, object]:
    prompt = InferInput("prompt", [1], "BYTES")
    text = "a red circle"
    prompt.set_data_from_numpy(np.array([text.encode() if binary else text], object), binary_data=binary)
    asked = InferRequest(NAME, [prompt], request_id="k1", parameters=PARAMETERS | {"binary_data_output": binary})
    answer = await client.infer(url, asked, model_name=NAME, headers=headers)
    outputs = {output.name: output for output in answer.outputs}
    return {"id": answer.id, "seed": outputs["seed"].as_numpy().tolist(), "image": outputs["image"].data[0]}


async def main(url: str, key: str) -> None:
    client = InferenceRESTClient(RESTConfig(protocol="v2", timeout=60))
    headers = {"Authorization": f"Bearer {key}"}
    results: dict[str, object] = {
        "ready": [await client.is_server_ready(url), await client.is_model_ready(url, NAME)],
        "json": await infer(client, url, headers, binary=False),
        "binary": await infer(client, url, headers, binary=True),
    }
    try:
        await infer(client, url, {}, binary=False)
    except httpx.HTTPStatusError as error:
        results["refused"] = error.response.status_code
    await client.close()
    print(json.dumps(results))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
