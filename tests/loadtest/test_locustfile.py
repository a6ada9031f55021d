"""`locust -f loadtest/locustfile.py --host URL`, as Locust's users run it."""

import itertools
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.processes import free_port

ROOT = Path(__file__).parents[2]
LOCUST = [sys.executable, "-m", "locust", "-f", "loadtest/locustfile.py"]


def most_at_once(truths: list[dict[str, float]]) -> int:
    """How many requests the server had at the same moment."""
    changes = sorted([(t["received"], 1) for t in truths] + [(t["answered"], -1) for t in truths])
    return max(itertools.accumulate((by for _, by in changes), initial=0))


@pytest.mark.parametrize("dialect", ["openai", "openai-stream", "v2"])
def test_users_wait_for_nobody_and_what_is_in_flight_at_the_end_is_not_forgotten(golden, eventually, dialect):
    server = golden(service=1.0)
    command = [*LOCUST, "--host", server.url, "--headless", "-u", "2", "-r", "2", "--only-summary"]
    command += ["--rate", "5", "--dialect", dialect]
    locust = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT)
    try:
        # Two users of a closed loop would never have more than two.
        eventually(lambda: most_at_once(httpx.get(f"{server.url}/truth").json()) > 4)
    finally:
        locust.terminate()
        shown, _ = locust.communicate()
    counted = int(re.search(r"Aggregated +(\d+) +0\(0\.00%\)", shown)[1])
    assert counted == len(httpx.get(f"{server.url}/truth").json())


def test_the_page_starts_a_run_and_prometheus_can_follow_it(golden, eventually):
    server, page, metrics = golden(service=0.01, fail=3), free_port(), free_port()
    command = [*LOCUST, "--host", server.url, "--web-host", "127.0.0.1", "--web-port", str(page)]
    locust = subprocess.Popen(
        [*command, "--metrics-port", str(metrics)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=ROOT
    )
    try:
        client = httpx.Client(base_url=f"http://127.0.0.1:{page}")

        def up() -> bool:
            try:
                return client.get("/").status_code == 200
            except httpx.TransportError:
                return False

        eventually(up)
        # Our own fields are on the page, with their defaults.
        assert all(field in client.get("/").text for field in ("dialect", "rate", "patience"))
        answer = client.post("/swarm", data={"user_count": 5, "spawn_rate": 5, "rate": 20})
        assert answer.json()["success"]
        eventually(lambda: client.get("/stats/requests").json()["total_rps"] > 0)
        eventually(lambda: 'outcome="failed"' in httpx.get(f"http://127.0.0.1:{metrics}/metrics").text)
        shown = httpx.get(f"http://127.0.0.1:{metrics}/metrics").text
        assert 'sdzero_loadtest_latency_seconds_bucket{dialect="openai",le="+Inf",start="warm",target="a"}' in shown
        assert "sdzero_loadtest_lateness_seconds_count" in shown
        assert "sdzero_loadtest_in_flight" in shown
    finally:
        client.close()
        locust.terminate()
        locust.communicate()
