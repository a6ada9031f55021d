"""The main job from end to end: real processes, a real v2 request over HTTP, pictures on disk, and the cold start."""

import argparse
import base64
import contextlib
import io
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
from PIL import Image, ImageDraw

from predictor.core.timeline import Phase, chart
from predictor.settings import PREFIX

PROMPTS = (
    "a large red circle on a white background",
    "a small blue square on a yellow background",
    "green triangle, black backdrop",
    "a yellow star on a blue background",
    "a purple heart on a white background",
    "an orange cross on a black background",
)
MARGIN, CAPTION = 8, 14  # pixels of the contact sheet


def main(argv: list[str]) -> int:
    """Run the demo, or with --serve keep the predictor up until Ctrl-C."""
    parser = argparse.ArgumentParser(prog="sdzero demo", description=__doc__, allow_abbrev=False)
    parser.add_argument("--model", required=True, help="folder of a model in diffusers format")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda [auto]")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads of the model; 0 is one per core [0]")
    parser.add_argument(
        "--prompt", action="append", help="what to draw; may be given several times [six of the demo's]"
    )
    parser.add_argument("--steps", type=int, default=20, help="denoising steps [20]")
    parser.add_argument("--seed", type=int, default=7, help="seed of every picture [7]")
    parser.add_argument("--out", type=Path, default=Path("out/demo"), help="folder for pictures and log [out/demo]")
    parser.add_argument("--serve", action="store_true", help="make no pictures: print a curl line and stay up")
    parser.add_argument("--port", type=int, help="HTTP port [8080 with --serve, else a free one]")
    given = parser.parse_args(argv)
    given.out.mkdir(parents=True, exist_ok=True)
    name = Path(given.model).resolve().name
    port = given.port or (8080 if given.serve else _free_port())
    with _predictor(given.model, name, given.device, given.threads, port, given.out / "predictor.log") as (
        process,
        client,
    ):
        _wait_until_ready(process, client, given.out / "predictor.log")
        if given.serve:
            _explain(port, name)
            with contextlib.suppress(KeyboardInterrupt):
                process.wait()
            return 0
        _draw(client, name, given.prompt or list(PROMPTS), given.steps, given.seed, given.out)
        print("\nwhere the cold start's time went (s):\n")
        print(chart([Phase(**phase) for phase in client.get("/timeline").json()["phases"]]))
    print(f"stopped: exit status {process.returncode}")
    return process.returncode or 0


@contextlib.contextmanager
def _predictor(
    model: str, name: str, device: str, threads: int, port: int, log: Path
) -> Iterator[tuple["subprocess.Popen[bytes]", httpx.Client]]:
    """The predictor's real processes; told to stop, as Kubernetes would, on the way out."""
    environ = {key: value for key, value in os.environ.items() if not key.startswith(PREFIX)}
    command = [sys.executable, "-m", "predictor.cli", "serve-predictor", "--model", model, "--model-name", name]
    command += [
        "--device",
        device,
        "--threads",
        str(threads),
        "--http-port",
        str(port),
        "--grpc-port",
        "0" if port != 8080 else "8081",
    ]
    with log.open("wb") as sink, httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=600) as client:
        process = subprocess.Popen(command, stdout=sink, stderr=subprocess.STDOUT, env=environ, start_new_session=True)  # noqa: S603
        try:
            yield process, client
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()


def _wait_until_ready(process: "subprocess.Popen[bytes]", client: httpx.Client, log: Path) -> None:
    begun = time.monotonic()
    while True:
        phase = "starting"
        with contextlib.suppress(httpx.TransportError):
            answer = client.get("/v2/health/ready")
            if answer.status_code == 200:
                break
            phase = answer.json().get("phase", phase)
        if process.poll() is not None:
            sys.exit(f"the predictor ended with status {process.returncode}:\n{log.read_text()[-2000:]}")
        _say(f"\r  waking: {phase:20} {time.monotonic() - begun:5.1f} s")
        time.sleep(0.05)
    _say(f"\r  ready after {time.monotonic() - begun:.1f} s{'':20}\n")


def _draw(client: httpx.Client, name: str, prompts: list[str], steps: int, seed: int, out: Path) -> None:
    def one(prompt: str) -> Image.Image:
        parameters = {"steps": steps, "seed": seed}
        tensor = {"name": "prompt", "shape": [1], "datatype": "BYTES", "data": [prompt]}
        answer = client.post(f"/v2/models/{name}/infer", json={"inputs": [tensor], "parameters": parameters})
        if answer.is_error:
            sys.exit(f"{prompt!r}: HTTP {answer.status_code}: {answer.text}")
        return Image.open(io.BytesIO(base64.b64decode(_output(answer.json(), "image")["data"][0])))

    begun = time.monotonic()
    first = one(prompts[0])
    _say(f"  first picture after {time.monotonic() - begun:.2f} s\n")
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


def contact_sheet(pictures: list[Image.Image], captions: list[str], columns: int = 3) -> Image.Image:
    """The pictures in a grid, each over its caption."""
    width = max(picture.width for picture in pictures) + MARGIN
    height = max(picture.height for picture in pictures) + MARGIN + CAPTION
    columns = min(columns, len(pictures))
    sheet = Image.new("RGB", (columns * width + MARGIN, -(-len(pictures) // columns) * height + MARGIN), "#888888")
    pen = ImageDraw.Draw(sheet)
    for number, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        left, top = number % columns * width + MARGIN, number // columns * height + MARGIN
        sheet.paste(picture, (left, top))
        room = (width - MARGIN) // 6  # the default font is 6 pixels wide
        pen.text(
            (left, top + picture.height + 1),
            caption if len(caption) <= room else caption[: room - 1] + "…",
            fill="white",
        )
    return sheet


def in_terminal(picture: Image.Image, columns: int) -> str:
    """The picture in coloured half blocks: two pixels per character (ISO 8613-6 colours)."""
    rows = max(2, round(picture.height / picture.width * columns) // 2 * 2)
    small = picture.convert("RGB").resize((columns, rows))
    pixel: Any = small.load()
    lines = []
    for y in range(0, rows, 2):
        cells = []
        for x in range(columns):
            (r, g, b), (r2, g2, b2) = pixel[x, y], pixel[x, y + 1]
            cells.append(f"\x1b[38;2;{r};{g};{b};48;2;{r2};{g2};{b2}m▀")
        lines.append("".join(cells) + "\x1b[0m")
    return "\n".join(lines)


def _explain(port: int, name: str) -> None:
    decode = "import sys,json,base64; sys.stdout.buffer.write(base64.b64decode(json.load(sys.stdin)['image'][0]))"
    body = '{"prompt": "a red circle on a blue background", "steps": 20}'
    print(f"\nserving {name} on http://127.0.0.1:{port} (Ctrl-C stops it). A picture:\n")
    print(f"curl -s http://127.0.0.1:{port}/v2/models/{name}/generate -H 'Content-Type: application/json' \\")
    print(f"  -d '{body}' | python3 -c \"{decode}\" > picture.png\n")


def _output(answer: dict[str, Any], name: str) -> dict[str, Any]:
    return next(output for output in answer["outputs"] if output["name"] == name)


def _say(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
