"""What `helm test` runs against the edges in $EDGES: without a key nothing starts, with one a picture comes back."""

import base64
import json
import os
import pathlib
import ssl
import sys
import time
import urllib.error
import urllib.request

ACCOUNT = pathlib.Path("/var/run/secrets/kubernetes.io/serviceaccount")
MODELS = json.loads(os.environ["EDGES"])  # model → address of its edge
KEY = os.environ.get("KEY", "")
INSTANCE = os.environ["INSTANCE"]
PATIENCE = float(os.environ["PATIENCE"])  # seconds for a picture, a cold start included


def ask(url: str, key: str) -> tuple[int, dict]:
    """Status and body of one picture's request."""
    headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {key}"} if key else {})
    body = json.dumps({"prompt": "a red circle", "n": 1}).encode()
    request = urllib.request.Request(f"{url}/v1/images/generations", body, headers)  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:  # noqa: S310
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read() or b"{}")


def pods(model: str) -> set[str] | None:
    """Names of the model's predictor pods, or None where this pod may not look."""
    token = ACCOUNT / "token"
    if not token.exists():
        return None
    namespace = (ACCOUNT / "namespace").read_text()
    selector = f"app.kubernetes.io/instance={INSTANCE},sdzero.dev/model={model},sdzero.dev/component=predictor"
    address = f"https://kubernetes.default.svc/api/v1/namespaces/{namespace}/pods?labelSelector={selector}"
    request = urllib.request.Request(address, headers={"authorization": f"Bearer {token.read_text()}"})
    trust = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))
    with urllib.request.urlopen(request, timeout=10, context=trust) as answer:  # noqa: S310
        return {pod["metadata"]["name"] for pod in json.load(answer)["items"]}


def check(model: str, url: str) -> list[str]:
    """What is wrong with this model."""
    wrong = []
    before = pods(model)
    status, body = ask(url, "")
    if status != 401:
        wrong.append(f"{model}: without a key: got {status} {body}; expected 401")
    if before is None:
        print(f"{model}: pods are not looked at: edge.watchPods is false")
    else:
        time.sleep(3)  # Knative decides every two seconds.
        if started := (pods(model) or set()) - before:
            wrong.append(f"{model}: a request without a key started {sorted(started)}")
    began = time.monotonic()
    status, body = ask(url, KEY)
    if status != 200:
        return [*wrong, f"{model}: with the first key: got {status} {body}; expected 200"]
    picture = base64.b64decode(body["data"][0]["b64_json"])
    if not picture.startswith(b"\x89PNG"):
        wrong.append(f"{model}: the picture begins with {picture[:8]!r}; expected a PNG")
    print(f"{model}: a picture of {len(picture)} bytes after {time.monotonic() - began:.1f} s")
    return wrong


if __name__ == "__main__":
    problems = [problem for model, url in MODELS.items() for problem in check(model, url)]
    sys.exit("\n".join(problems) or None)
