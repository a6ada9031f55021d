"""Wakes a predictor and keeps it awake: `prewarm.py URL SECONDS PATIENCE`, the last being seconds for its start."""

import sys
import time
import urllib.error
import urllib.request

PAUSE = 5.0  # seconds between two requests; shorter than any window of Knative


def ready(url: str, patience: float) -> bool:
    """Whether the predictor says that it is; Knative holds the request while a pod starts."""
    try:
        with urllib.request.urlopen(f"{url}/v2/health/ready", timeout=patience) as answer:  # noqa: S310
            return answer.status == 200
    except (urllib.error.URLError, TimeoutError) as error:
        print(f"{url}: {error}", file=sys.stderr)
        return False


def main(url: str, seconds: float, patience: float) -> int:
    """Exit status 0 if it was ready in time."""
    began = time.monotonic()
    while not ready(url, patience):
        if time.monotonic() - began > patience:
            return 1
        time.sleep(PAUSE)
    print(f"{url}: ready after {time.monotonic() - began:.1f} s", flush=True)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(PAUSE)
        ready(url, patience)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], float(sys.argv[2]), float(sys.argv[3])))
