import asyncio
import io
import json
from pathlib import Path
from typing import Any

import pytest

from predictor.cluster.api import ApiError
from predictor.cluster.cli import main, watching
from predictor.cluster.telling import ForPeople, ForPrograms
from tests.cluster.api_server import Answer, ApiServer, Asked, Stream, api_server, listing, status
from tests.cluster.recordings import recorded
from tests.cluster.test_access import kubeconfig
from tests.cluster.test_process import READY, REQUEST

NAMESPACE = "watch-dev"
TIMELINE = {
    "marks": [
        {"process": "server", "name": "process_start", "at": 100.0, "since": "process_start"},
        {"process": "engine", "name": "process_start", "at": 100.0, "since": "process_start"},
        {"process": "engine", "name": "weights_read", "at": 101.5, "since": "process_start"},
        {"process": "server", "name": "engine_ready", "at": 103.0, "since": "process_start"},
    ]
}


class Cluster:
    """Replays a recording's start to whoever watches, as fast as it is read, and has a log and a timeline.

    The four watches run apart here as they do in life; so it ends when the pod is ready, before it would be gone again.
    """

    def __init__(self, name: str, log: bytes | Answer = b"", timeline: Answer = (200, TIMELINE)) -> None:
        self.forbidden: set[str] = set()
        self._lines = [line for line in recorded(name) if not _goes(line)]
        self._log = log
        self._timeline = timeline

    def __call__(self, asked: Asked) -> Answer:
        if asked.resource in self.forbidden:
            return status(403, f"{asked.resource} is forbidden")
        if asked.resource == "log":
            if isinstance(self._log, tuple):
                return self._log
            stream = Stream()
            stream.send(self._log)
            return stream
        if asked.resource == "timeline":
            return self._timeline
        mine = [line for line in self._lines if line["resource"] == asked.resource]
        if asked.query.get("watch"):
            stream = Stream()
            stream.send(*(line["event"] for line in mine if "event" in line))
            return stream
        items: list[Any] = mine[0]["listed"]
        if asked.query.get("labelSelector") == "serving.knative.dev/service":
            items = [{"metadata": {"name": "x", "labels": {"serving.knative.dev/service": "plain"}}}]
        return listing("1", *items)


def _goes(line: dict[str, Any]) -> bool:
    event = line.get("event", {"type": "", "object": {"metadata": {}}})
    meta = event["object"]["metadata"]
    asleep = event["object"].get("spec", {}).get("replicas") == 0
    return event["type"] == "DELETED" or "deletionTimestamp" in meta or asleep


async def watched(server: ApiServer, service: str = "plain") -> list[dict[str, Any]]:
    """What `--once --json` prints."""
    out = io.StringIO()
    async with asyncio.timeout(15):
        assert await watching(server.access(), NAMESPACE, service, ForPrograms(out), once=True) == 0
    return [json.loads(line) for line in out.getvalue().splitlines()]


def named(told: list[dict[str, Any]], type: str = "mark") -> list[str]:
    return [line["name"] for line in told if line["type"] == type]


async def test_one_start_as_json_lines():
    async with api_server(Cluster("plain", log=status(403, "pods/log is forbidden"))) as server:
        told = await watched(server)
    assert {"decision", "pod", "scheduled", "sandbox", "pulled", "created", "started", "ready", "endpoint"} <= set(
        named(told)
    )
    ready = next(line for line in told if line.get("name") == "ready")
    assert ready["reported"] == int(ready["reported"])  # Kubernetes' whole seconds, and our own beside them
    assert ready["received"] != int(ready["received"])
    assert ready["reported"] <= ready["at"] <= ready["reported"] + 1
    (start,) = [line for line in told if line["type"] == "start"]
    assert start["decided"]
    assert start["pod"] == ready["pod"]
    assert [phase["name"] for phase in start["phases"]][-2:] == ["ready", "endpoint"]
    notes = [line["text"] for line in told if line["type"] == "note"]
    assert len(notes) == 1
    assert "pods/log is forbidden" in notes[0]


async def test_the_process_in_the_pod_tells_its_part_to_the_first_answer():
    log = f"not JSON\n{READY}\n{REQUEST}\n".encode()
    async with api_server(Cluster("plain", log=log)) as server:
        told = await watched(server)
        (asked,) = [asked for asked in server.asked if asked.resource == "log"]
        assert asked.query == {"container": "user-container", "follow": "true"}
        (asked,) = [asked for asked in server.asked if asked.resource == "timeline"]
        pod = next(line["pod"] for line in told if line.get("name") == "pod")
        # The pod's own port: neither the service, which would wake it, nor queue-proxy, which would count it.
        assert asked.path == f"/api/v1/namespaces/{NAMESPACE}/pods/{pod}:8080/proxy/timeline"
    assert {"engine weights_read", "server engine_ready", "first_answer"} <= set(named(told))
    (start,) = [line for line in told if line["type"] == "start"]
    seconds = {(phase["process"], phase["name"]): phase["seconds"] for phase in start["phases"]}
    assert seconds["engine", "weights_read"] == pytest.approx(1.5)
    assert seconds["server", "first_answer"] == pytest.approx(0.5)


async def test_without_the_timeline_the_log_is_enough_for_ready_and_first_answer():
    log = f"{READY}\n{REQUEST}\n".encode()
    async with api_server(Cluster("plain", log=log, timeline=status(503, "no route to host"))) as server:
        told = await watched(server)
    assert {"server engine_ready", "first_answer"} <= set(named(told))
    assert any("no route to host" in line["text"] for line in told if line["type"] == "note")


async def test_with_the_right_to_read_pods_and_events_alone():
    cluster = Cluster("plain", log=status(403, "no"))
    cluster.forbidden = {"deployments", "endpointslices"}
    async with api_server(cluster) as server:
        told = await watched(server)
    assert "ready" in named(told)
    assert {"decision", "endpoint"} & set(named(told)) == set()
    (start,) = [line for line in told if line["type"] == "start"]
    assert not start["decided"]
    assert start["phases"][0]["name"] == "scheduled"


async def test_a_service_that_is_not_there_is_said_with_those_that_are():
    async with api_server(Cluster("plain")) as server:
        with pytest.raises(ApiError, match="got 'plane'; Knative services with a revision in watch-dev: plain"):
            await watched(server, "plane")


async def test_nothing_may_be_read():
    cluster = Cluster("plain")
    cluster.forbidden = {"deployments", "endpointslices", "pods", "events"}
    async with api_server(cluster) as server:
        with pytest.raises(ApiError, match="nothing may be watched"):
            await watched(server)


async def test_the_pictures_for_people():
    out = io.StringIO()
    async with api_server(Cluster("plain", log=status(403, "no"))) as server, asyncio.timeout(15):
        await watching(server.access(), NAMESPACE, "plain", ForPeople(out), once=True)
    lines = out.getvalue().splitlines()
    assert lines[0].split() == ["received", "reported", "pod", "mark"]
    assert sum("█" in line for line in lines) == 8
    # The deployment has no time of its own; the pod is known by the end of its name.
    assert any(line.split()[2:] == ["decision:", "replicas", "0", "→", "1"] for line in lines)
    assert any(line.endswith("p8p7m  ready") for line in lines)


async def test_trouble_stands_out(capsys, tmp_path):
    async with api_server(Cluster("absent")) as server:
        config = kubeconfig(tmp_path, server.url, {"token": "t"}, namespace=NAMESPACE)
        arguments = ["plain", "--service", "--kubeconfig", config, "--once", "--timeout", "3"]
        assert await asyncio.to_thread(main, arguments) == 1
    lines = capsys.readouterr().out.splitlines()
    assert any("! image user-container: ErrImagePull:" in line for line in lines)


async def test_the_commands_exit_codes(capsys, tmp_path: Path):
    async with api_server(Cluster("plain", log=status(403, "no"))) as server:
        config = kubeconfig(tmp_path, server.url, {"token": "t"}, namespace=NAMESPACE)
        base = ["plain", "--kubeconfig", config, "--json"]
        assert await asyncio.to_thread(main, [*base, "--service", "--once"]) == 0
        assert capsys.readouterr().out.count('"type": "start"') == 1
        assert await asyncio.to_thread(main, [*base, "--service", "--timeout", "0.5"]) == 0
        assert await asyncio.to_thread(main, base) == 2
        assert "got 'plain-predictor'" in capsys.readouterr().err
    assert await asyncio.to_thread(main, [*base, "--service"]) == 2  # nobody listens any more
    assert "no connection" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["x", "--timeout", "0"], ["x", "--timeout", "nan"], ["x", "--onc"]])
def test_wrong_arguments(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "sdzero watch: error:" in capsys.readouterr().err
