"""What Prometheus sees, and whether the panel asks for nothing else."""

import json
import re
from pathlib import Path

import httpx

from loadtest.exporter import Exporter
from tests.processes import free_port

PANEL = Path(__file__).parents[2] / "loadtest" / "grafana-panel.json"


def test_the_panel_asks_for_what_there_is(sample):
    port = free_port()
    exporter = Exporter(port)
    exporter.add(sample(0, cold=True, latency=5.5), "openai", 3)
    exporter.add(sample(1, outcome="lost"), "openai", 2)
    shown = httpx.get(f"http://127.0.0.1:{port}/metrics").text
    exporter.close()
    assert 'sdzero_loadtest_latency_seconds_sum{dialect="openai",start="cold",target="a"} 5.5' in shown
    assert 'sdzero_loadtest_attempts_total{dialect="openai",outcome="lost",target="a"} 1.0' in shown
    assert "sdzero_loadtest_in_flight 2.0" in shown
    series = set(re.findall(r"^(sdzero_\w+)\{?", shown, re.MULTILINE))
    panel = json.loads(PANEL.read_text())
    asked = {name for target in panel["targets"] for name in re.findall(r"sdzero_\w+", target["expr"])}
    assert len(asked) == 3
    assert asked <= series
