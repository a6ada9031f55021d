"""KServe's own clients against a release, in a process of their own.

They and tritonclient.grpc register the same protobuf names, and cannot be imported together.

    kserve_client.py rest URL HOST MODEL KEY      prints what came back, as JSON
    kserve_client.py grpc ADDRESS HOST MODEL
"""

import asyncio
import json
import sys

import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, InferResponse
from kserve.inference_client import RESTConfig

PROMPT = "a white square on a black background"
PARAMETERS = {"seed": 21, "steps": 10}


def asked(model: str) -> InferRequest:
    prompt = InferInput("prompt", [1], "BYTES")
    prompt.set_data_from_numpy(np.array([PROMPT.encode()], object), binary_data=True)
    return InferRequest(model, [prompt], request_id="k1", parameters=PARAMETERS)


def told(answer: InferResponse) -> dict[str, object]:
    (image,) = [output for output in answer.outputs if output.name == "image"]
    picture = image.as_numpy()[0]
    return {"id": answer.id, "image": picture.decode() if isinstance(picture, bytes) else picture}


async def rest(url: str, host: str, model: str, key: str) -> dict[str, object]:
    client = InferenceRESTClient(RESTConfig(protocol="v2", timeout=300))
    headers = {"Host": host, "Authorization": f"Bearer {key}"}
    answer = await client.infer(url, asked(model), model_name=model, headers=headers)
    await client.close()
    return told(answer)


async def grpc(address: str, host: str, model: str) -> dict[str, object]:
    client = InferenceGRPCClient(address, channel_args=[("grpc.default_authority", host)], timeout=300)
    answer = await client.infer(asked(model))
    await client.close()
    return told(answer)


if __name__ == "__main__":
    kind, *arguments = sys.argv[1:]
    print(json.dumps(asyncio.run({"rest": rest, "grpc": grpc}[kind](*arguments))))
