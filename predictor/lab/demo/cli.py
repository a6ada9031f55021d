"""The main job from end to end: edge and predictor as real processes, pictures for a client, and the cold start.

The edge comes first and alone, as in a cluster at zero. The predictor is started by the first request: here the demo
plays the part of Knative.
"""

import argparse
import base64
import contextlib
import io
import json
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
from PIL import Image

from predictor.core.timeline import Phase, chart
from predictor.lab.demo.processes import Running, free_port, running, sdzero
from predictor.lab.demo.sheet import contact_sheet, in_terminal

PROMPTS = (
    "a large red circle on a white background",
    "a small blue square on a yellow background",
    "green triangle, black backdrop",
    "a yellow star on a blue background",
    "a purple heart on a white background",
    "an orange cross on a black background",
)
SERVE_PORT = 8080


def main(argv: list[str]) -> int:
    """Run the demo, or with --serve keep edge and predictor up until Ctrl-C."""
    given = _parser().parse_args(argv)
    given.out.mkdir(parents=True, exist_ok=True)
    name = Path(given.model).resolve().name
    port = given.port or (SERVE_PORT if given.serve else free_port())
    behind = port + 1 if given.serve else free_port()
    data = given.out / "data"
    data.mkdir(exist_ok=True)
    told = data / "capabilities.json"
    sdzero("capabilities", "--model", given.model, "--device", given.device, "--out", str(told))
    edge_command = ["serve-edge", "--predictor-url", f"http://127.0.0.1:{behind}", "--model-name", name]
    edge_command += ["--http-port", str(port), "--metrics-port", "0" if not given.serve else "9090"]
    edge_command += ["--data", str(data), "--capabilities", str(told)]
    predictor_command = ["serve-predictor", "--model", given.model, "--model-name", name, "--device", given.device]
    predictor_command += ["--threads", str(given.threads), "--http-port", str(behind)]
    predictor_command += ["--grpc-port", str(port + 2) if given.serve else "0"]
    with running("edge", edge_command, port, given.out / "edge.log") as edge:
        edge.wait_until_ready("/readyz")
        key = sdzero("keys", "create", "--data", str(data), "--name", "demo").strip()
        with running("predictor", predictor_command, behind, given.out / "predictor.log") as predictor:
            if given.serve:
                return _serve(edge, predictor, key)
            headers = {"Authorization": f"Bearer {key}"}
            with httpx.Client(base_url=edge.url, headers=headers, timeout=600) as client:
                _draw(client, predictor, given.prompt or list(PROMPTS), given.steps, given.seed, given.out)
                _account(client)
            print("\nwhere the cold start's time went (s):\n")
            phases = httpx.get(f"{predictor.url}/timeline").json()["phases"]
            print(chart([Phase(**phase) for phase in phases]))
    statuses = edge.popen.returncode, predictor.popen.returncode
    print(f"stopped: exit status {max(statuses)}")
    return max(statuses)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sdzero demo", description=__doc__, allow_abbrev=False)
    parser.add_argument("--model", required=True, help="folder of a model in diffusers format")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda [auto]")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads of the model; 0 is one per core [0]")
    parser.add_argument(
        "--prompt", action="append", help="what to draw; may be given several times [six of the demo's]"
    )
    parser.add_argument("--steps", type=int, default=20, help="denoising steps [20]")
    parser.add_argument("--seed", type=int, default=7, help="seed of every picture [7]")
    parser.add_argument(
        "--out", type=Path, default=Path("out/demo"), help="folder for pictures, logs and data [out/demo]"
    )
    parser.add_argument("--serve", action="store_true", help="make no pictures: print the page's address and stay up")
    parser.add_argument("--port", type=int, help="the edge's port [8080 with --serve, else a free one]")
    return parser


def _draw(client: httpx.Client, predictor: Running, prompts: list[str], steps: int, seed: int, out: Path) -> None:
    def one(prompt: str) -> Image.Image:
        body = {"prompt": prompt, "num_inference_steps": steps, "seed": seed}
        answer = client.post("/v1/images/generations", json=body)
        if answer.is_error:
            predictor.check()
            sys.exit(f"{prompt!r}: HTTP {answer.status_code}: {answer.text}")
        return Image.open(io.BytesIO(base64.b64decode(answer.json()["data"][0]["b64_json"])))

    begun = time.monotonic()
    _follow(client, predictor, {"prompt": prompts[0], "num_inference_steps": steps, "seed": seed})
    _say(f"\r  first picture after {time.monotonic() - begun:.2f} s, the start of a predictor included{'':20}\n")
    begun = time.monotonic()
    first = one(prompts[0])
    _say(f"  the same again after {1000 * (time.monotonic() - begun):.0f} ms, from the cache\n")
    begun = time.monotonic()
    with ThreadPoolExecutor(len(prompts)) as pool:
        pictures = [first, *pool.map(one, prompts[1:])]
    if len(prompts) > 1:
        _say(f"  {len(prompts) - 1} more, asked for at once, after {time.monotonic() - begun:.2f} s\n")
    for number, (prompt, picture) in enumerate(zip(prompts, pictures, strict=True)):
        path = out / f"{number:02}-{''.join(c if c.isalnum() else '-' for c in prompt)[:60]}.png"
        picture.save(path)
        print(f"  {path}")
    sheet = contact_sheet(pictures, prompts)
    sheet.save(out / "contact-sheet.png")
    print(f"  {out / 'contact-sheet.png'}")
    if sys.stdout.isatty():
        print(in_terminal(sheet, columns=min(100, os.get_terminal_size().columns)))


def _follow(client: httpx.Client, predictor: Running, body: dict[str, object]) -> None:
    """A job, followed by its events to its end."""
    job = client.post("/v1/jobs", json=body)
    if job.is_error:
        sys.exit(f"HTTP {job.status_code}: {job.text}")
    with client.stream("GET", f"/v1/jobs/{job.json()['id']}/events") as reply:
        for name, data in _events(reply):
            predictor.check()
            if name == "waking":
                _say(f"\r  waking: {data['phase']:20} {data['seconds']:5.1f} s, about {data['eta']:.0f} s more ")
            elif name == "progress":
                _say(f"\r  step {data['step']} of {data['steps']}{'':40}")
            elif name == "failed":
                sys.exit(f"{body['prompt']!r}: {data['error']['message']}")


def _events(reply: httpx.Response) -> Iterator[tuple[str, dict[str, Any]]]:
    name = ""
    for line in reply.iter_lines():
        field, _, value = line.partition(": ")
        if field == "event":
            name = value
        elif field == "data":
            yield name, json.loads(value)


def _account(client: httpx.Client) -> None:
    for sums in client.get("/v1/usage").json()["data"]:
        print(
            f"\n  spent by this key: {sums['images']} images, {sums['megapixel_steps']:.1f} megapixel-steps, "
            f"{sums['gpu_seconds']:.1f} device seconds, {sums['cold_starts']} cold start; "
            f"answered from the cache: {sums['cache_hits']}"
        )


def _serve(edge: Running, predictor: Running, key: str) -> int:
    predictor.wait_until_ready("/v2/health/ready")
    body = '{"prompt": "a red circle on a blue background", "seed": 7}'
    decode = (
        "import sys,json,base64; sys.stdout.buffer.write(base64.b64decode(json.load(sys.stdin)['data'][0]['b64_json']))"
    )
    print(f"\na page to draw with:  {edge.url}/#key={key}   (Ctrl-C stops it)\n")
    print("a picture with curl:\n")
    print(f"curl -s {edge.url}/v1/images/generations -H 'Authorization: Bearer {key}' -d '{body}' \\")
    print(f'  | python3 -c "{decode}" > picture.png\n', flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        edge.popen.wait()
    return 0


def _say(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
