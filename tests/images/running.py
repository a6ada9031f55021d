"""Run images as a cluster does: user 65532, root file system read-only, only /tmp and /data writable. Needs root.

    python -m tests.images.running EDGE PREDICTOR

EDGE and PREDICTOR are folders with an image's files: `buildah mount CONTAINER`, or `docker export CONTAINER | tar -x`.
The predictor draws over REST, asked by the edge; the picture goes through the pixel checker. Prints what was seen.
"""

import argparse
import base64
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
from PIL import Image

from predictor.lab.shapes.checker import check
from tests.processes import free_port, wait_until

USER = 65532
PATH = "/opt/sdzero/bin:/usr/local/bin:/usr/bin:/bin"  # as the Dockerfile has it
PROMPT = "a red circle on a blue background"
STARTING = 120.0  # seconds
# A mount namespace of its own; what is mounted in it goes with it.
SANDBOX = """
set -e
mount --bind "$1" "$1"
mount -o remount,bind,ro "$1"
mount -t tmpfs tmpfs "$1/tmp"
if [ -d "$1/data" ]; then mount -t tmpfs -o uid=65532,gid=65532,mode=0750 tmpfs "$1/data"; fi
mount -t proc proc "$1/proc"
mount --rbind /dev "$1/dev"
root=$1
shift
exec chroot --userspec=65532:65532 "$root" "$@"
"""


def main(argv: list[str]) -> int:
    """0 if everything holds; an assertion says what does not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("edge", type=Path)
    parser.add_argument("predictor", type=Path)
    given = parser.parse_args(argv)
    for root in (given.edge, given.predictor):
        who_and_where(root)
    port = free_port()
    predictor = {"SDZERO_HTTP_PORT": str(port), "SDZERO_GRPC_PORT": str(free_port()), "SDZERO_MODEL_NAME": "shapes"}
    predictor |= served(given.predictor) | {"SDZERO_THREADS": "1"}
    began = time.monotonic()
    with running(given.predictor, predictor, "serve-predictor"):
        wait_until(lambda: answers(f"http://127.0.0.1:{port}/v2/health/ready"), STARTING)
        print(f"predictor ready after {time.monotonic() - began:.2f} s")
        through_the_edge(given.edge, port)
    print("both ended with status 0")
    return 0


def who_and_where(root: Path) -> None:
    """Nobody in particular, on a root that takes nothing, with bytecode that needs no writing."""
    script = "id -u; (echo x >/opt/x) 2>/dev/null && echo written || echo refused; echo x >/tmp/x && echo tmp"
    assert said(root, "sh", "-c", script).split() == [str(USER), "refused", "tmp"]
    assert said(root, "sdzero", "--version").startswith("sdzero ")
    bill = json.loads((root / "usr/share/sdzero/sbom.cdx.json").read_text())
    assert bill["bomFormat"] == "CycloneDX"
    print(f"{root}: {len(bill['components'])} distributions in the bill of materials")


def through_the_edge(root: Path, predictor: int) -> None:
    """One picture, asked for as a client of the edge asks for it."""
    port = free_port()
    settings = {
        "SDZERO_DATA": "/data",
        "SDZERO_AUTH": "none",
        "SDZERO_HTTP_PORT": str(port),
        "SDZERO_METRICS_PORT": str(free_port()),
        "SDZERO_MODEL_NAME": "shapes",
        "SDZERO_PREDICTOR_URL": f"http://127.0.0.1:{predictor}",
    }
    with running(root, settings, "serve-edge"):
        wait_until(lambda: answers(f"http://127.0.0.1:{port}/readyz"), STARTING)
        order = {"prompt": PROMPT, "seed": 7, "num_inference_steps": 20}
        reply = httpx.post(f"http://127.0.0.1:{port}/v1/images/generations", json=order, timeout=60)
        assert reply.status_code == 200, reply.text
        content = base64.b64decode(reply.json()["data"][0]["b64_json"])
    with Image.open(io.BytesIO(content)) as picture:
        found = check(np.asarray(picture.convert("RGB")))
    assert (found.shape, found.colour, found.background) == ("circle", "red", "blue"), found
    print(f"asked for {PROMPT}, got {found.colour} {found.shape} on {found.background}")


def served(root: Path) -> dict[str, str]:
    """The image's own setting: a bundle, or else a model."""
    return {"SDZERO_BUNDLE": "/bundle"} if (root / "bundle").is_dir() else {"SDZERO_MODEL": "/model"}


def sandbox(root: Path, command: tuple[str, ...]) -> list[str]:
    return ["unshare", "--mount", "--propagation", "private", "sh", "-c", SANDBOX, "sh", str(root), *command]


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    return {"PATH": f"{PATH}:/usr/sbin:/sbin", "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1", **settings}


def said(root: Path, *command: str) -> str:
    run = subprocess.run(sandbox(root, command), env=environment({}), capture_output=True, text=True, check=True)
    return run.stdout


@contextmanager
def running(root: Path, settings: Mapping[str, str], command: str) -> Iterator[None]:
    """The image's own command, ended as a cluster ends it."""
    process = subprocess.Popen(sandbox(root, ("sdzero", command)), env=environment(settings))
    try:
        yield
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()


def answers(url: str) -> bool:
    """Whether it says 200 by now."""
    try:
        return httpx.get(url).status_code == 200
    except httpx.TransportError:
        return False


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
