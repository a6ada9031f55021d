"""A job as its caller follows it: from 202 to its one outcome, whatever dies on the way."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx

from tests.e2e.asking import JOBS, Drawing, Picture, decode, order

END = ("done", "failed", "cancelled")
# 150 steps of two pictures: seconds, on any CPU.
LONG = {"num_inference_steps": 150, "n": 2}


@dataclass
class Followed:
    """An acknowledged job, and the events that have come so far."""

    client: httpx.Client
    id: str
    drawing: Drawing
    told: list[tuple[str, dict[str, Any]]]

    def until(self, condition: Callable[[str, dict[str, Any]], bool], what: str, seconds: float = 300.0) -> dict:
        """Read events until one fits; its data. A connection that breaks is made again, as an EventSource would."""
        deadline = time.monotonic() + seconds
        for name, data in self._events(deadline):
            self.told.append((name, data))
            if condition(name, data):
                return data
            assert name not in END, f"ended before {what}: {name} {data}"
            if time.monotonic() > deadline:
                break
        raise AssertionError(f"not within {seconds:.0f} s: {what}; told were {self.told[-5:]}")

    def until_named(self, *names: str) -> dict[str, Any]:
        return self.until(lambda name, _: name in names, " or ".join(names))

    def pictures(self) -> list[Picture]:
        """Wait for the end, which is `done`; its pictures, fetched by their links."""
        self.until_named("done")
        job = self.show()
        assert (job["state"], job["error"]) == ("done", None)
        files = (self.client.get(httpx.URL(image["url"]).raw_path.decode()) for image in job["images"])
        return [decode(reply.raise_for_status().content) for reply in files]

    def assert_done_and_right(self) -> None:
        """One outcome, and every picture shows what was asked for."""
        pictures = self.pictures()
        assert len(pictures) == self.show()["usage"]["images"] > 0
        for picture in pictures:
            self.drawing.assert_in(picture)
        assert [name for name, _ in self.told if name in END] == ["done"]

    def show(self) -> dict[str, Any]:
        """The job as it is now."""
        job: dict[str, Any] = self.client.get(f"{JOBS}/{self.id}").raise_for_status().json()
        return job

    def _events(self, deadline: float) -> Iterator[tuple[str, dict[str, Any]]]:
        last = ""
        while time.monotonic() < deadline:
            headers = {"Last-Event-ID": last} if last else {}
            try:
                with self.client.stream("GET", f"{JOBS}/{self.id}/events", headers=headers) as reply:
                    if reply.status_code != 200:  # an edge that starts is not there yet
                        continue
                    for fields in blocks(reply):
                        last = fields.get("id", last)
                        yield fields["event"], json.loads(fields["data"])
            except httpx.TransportError:
                continue


def blocks(reply: httpx.Response) -> Iterator[dict[str, str]]:
    """Server-sent events, field by field; comments are left out."""
    fields: dict[str, str] = {}
    for line in reply.iter_lines():
        if not line and "event" in fields:
            yield fields
            fields = {}
        elif line and not line.startswith(":"):
            name, _, text = line.partition(": ")
            fields[name] = text


def begin(client: httpx.Client, drawing: Drawing, seed: int, **fields: object) -> Followed:
    """A job that the edge has acknowledged with 202."""
    reply = client.post(JOBS, json=order(drawing, seed, **fields))
    assert reply.status_code == 202, reply.text
    return Followed(client, reply.json()["id"], drawing, [])
