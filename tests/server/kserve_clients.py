"""KServe's own clients against a server, in a process of their own.

They and tritonclient.grpc register the same protobuf names, and cannot be imported together.

    kserve_clients.py URL GRPC_ADDRESS      prints what came back, as JSON
"""

import asyncio
import json
import sys

import grpc
import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest
from kserve.inference_client import RESTConfig
from kserve.protocol.infer_type import RequestedOutput


def prompt(binary: bool) -> InferInput:
    tensor = InferInput("prompt", [1], "BYTES")
    tensor.set_data_from_numpy(np.array([b"a red circle" if binary else "a red circle"], object), binary_data=binary)
    return tensor


async def rest(url: str, binary: bool) -> dict[str, object]:
    client = InferenceRESTClient(RESTConfig(protocol="v2", timeout=20))
    parameters = {"seed": 5, "binary_data_output": binary}
    asked = InferRequest("sd", [prompt(binary)], request_id="k1", parameters=parameters)
    answer = await client.infer(url, asked, model_name="sd")
    outputs = {output.name: output for output in answer.outputs}
    ready = [await client.is_server_ready(url), await client.is_model_ready(url, "sd")]
    await client.close()
    return {
        "ready": ready,
        "id": answer.id,
        "seed": outputs["seed"].as_numpy().tolist(),
        "image": outputs["image"].data[0],
    }


async def over_grpc(address: str) -> dict[str, object]:
    client = InferenceGRPCClient(address, timeout=20)
    wanted = [RequestedOutput("seed"), RequestedOutput("image")]
    asked = InferRequest("sd", [prompt(True)], request_id="k2", parameters={"seed": 5}, request_outputs=wanted)
    answer = await client.infer(asked)
    outputs = {output.name: output.as_numpy().tolist() for output in answer.outputs}
    ready = [await client.is_server_ready(), await client.is_model_ready("sd")]
    try:
        await client.infer(InferRequest("sd", []))
    except grpc.RpcError as error:
        refused = error.code().name
    await client.close()
    return {
        "ready": ready,
        "id": answer.id,
        "seed": outputs["seed"],
        "image": outputs["image"][0].decode(),
        "refused": refused,
    }


async def main(url: str, address: str) -> None:
    results = {"json": await rest(url, False), "binary": await rest(url, True), "grpc": await over_grpc(address)}
    print(json.dumps(results))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
