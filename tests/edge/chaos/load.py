"""Clients of every kind, who do not know that anything is wrong."""

import asyncio
import json
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx

from tests.edge.chaos.seen import Seen

PROMPTS = ("a red circle on a blue background", "a green star", "a yellow square on a black background", "a pink ring")
# With parts away, a client may be told so. Anything else that is no success is a bug.
PARDONED = {429, 499, 503, 504}
PATIENT = 20.0  # seconds
RESEND = 1.0  # seconds until a client that must succeed asks again


@dataclass(frozen=True)
class Key:
    """An API key and what it may do."""

    name: str
    secret: str
    concurrent_jobs: int = 0


class Client:
    """One of several at work at once. All that it does is drawn from its own `random`."""

    def __init__(self, edges: list[str], keys: list[Key], webhooks: str, seen: Seen, random: random.Random) -> None:
        self._edges = edges
        self._keys = keys
        self._webhooks = webhooks
        self._seen = seen
        self._random = random
        self._http = httpx.AsyncClient(timeout=PATIENT, trust_env=False)
        self._acts: dict[Callable[[Key], Any], int] = {
            self._job: 6,
            self._duplicate: 3,
            self._idempotent: 2,
            self._sync: 4,
            self._stream: 2,
            self._follow: 2,
            self._cancel: 2,
            self._hang_up: 3,
            self._ask_again: 3,
            self._prefer_async: 1,
        }

    async def run(self, seconds: float) -> None:
        """Act again and again for so long."""
        over = time.monotonic() + seconds
        async with self._http:
            while time.monotonic() < over:
                (act,) = self._random.choices(list(self._acts), list(self._acts.values()))
                self._seen.acts[act.__name__.lstrip("_")] += 1
                try:
                    await act(self._random.choice(self._keys))
                except httpx.TransportError as error:
                    self._seen.answers[type(error).__name__] += 1
                    await asyncio.sleep(RESEND)
                await asyncio.sleep(self._random.uniform(0.0, 0.8))

    async def _job(self, key: Key) -> dict[str, Any] | None:
        return await self._create(key, self._body() | self._webhook())

    async def _duplicate(self, key: Key) -> None:
        """What others ask for as well, at the same time or earlier."""
        await self._create(key, self._popular() | self._webhook())

    async def _idempotent(self, key: Key) -> None:
        """Twice under one Idempotency-Key, and again until it was heard each time."""
        name = f"order {self._random.getrandbits(64):x}"
        body = self._body() | self._webhook()
        for _ in range(2):
            for _ in range(20):
                try:
                    if await self._create(key, body, {"Idempotency-Key": name}, "idempotent"):
                        break
                except httpx.TransportError as error:
                    self._seen.answers[type(error).__name__] += 1
                await asyncio.sleep(RESEND)

    async def _sync(self, key: Key) -> None:
        body = self._random.choice((self._body, self._popular))()
        reply = await self._send(key, "POST", "/v1/images/generations", body)
        if reply.status_code == 200:
            answer = reply.json()
            self._answered(key, answer["x_sdzero"], "sync")
            files = [one["b64_json"] for one in answer["data"]]
            self._seen.pictures(answer["x_sdzero"]["job"], files, body["size"], body["n"])

    async def _stream(self, key: Key) -> None:
        body = self._random.choice((self._body, self._popular))() | {"stream": True, "partial_images": 1}
        files, facts = [], None
        async with self._http.stream(
            "POST", f"{self._edge()}/v1/images/generations", json=body, headers=self._headers(key)
        ) as reply:
            if reply.status_code != 200:
                self._count(reply.status_code, json.loads(await reply.aread()), "stream")
                return
            async for line in reply.aiter_lines():
                if not line.startswith("data: "):
                    continue
                event = json.loads(line.removeprefix("data: "))
                if "error" in event:
                    self._count(503, event, "stream")
                elif event["type"] == "image_generation.completed":
                    files.append(event["b64_json"])
                    facts = event["x_sdzero"]
        if facts is not None and len(files) == body["n"]:
            self._answered(key, facts, "stream")
            self._seen.pictures(facts["job"], files, body["size"], body["n"])

    async def _follow(self, key: Key) -> None:
        """A job's events to its end, at whatever edge is there, on from the last one that was heard."""
        view = await self._job(key)
        if view is None:
            return
        last, over = None, time.monotonic() + PATIENT
        while time.monotonic() < over:
            headers = self._headers(key) | ({"Last-Event-ID": last} if last else {})
            try:
                async with self._http.stream(
                    "GET", f"{self._edge()}/v1/jobs/{view['id']}/events", headers=headers
                ) as reply:
                    if reply.status_code not in (200, *PARDONED):
                        self._seen.complain(f"{view['id']}: its events answer {reply.status_code}")
                        return
                    name = ""
                    async for line in reply.aiter_lines():
                        what, _, value = line.partition(": ")
                        if what == "id" and last and value != "end" and _position(value) <= _position(last):
                            self._seen.answers["event heard twice"] += 1
                        last = value if what == "id" else last
                        name = value if what == "event" else name
                        if what == "data" and name in ("done", "failed", "cancelled"):
                            self._seen.view(json.loads(value))
                            return
            except httpx.TransportError:
                self._seen.answers["events broken off"] += 1
            await asyncio.sleep(RESEND)

    async def _cancel(self, key: Key) -> None:
        view = await self._job(key)
        if view is not None:
            await asyncio.sleep(self._random.uniform(0.0, 1.5))
            reply = await self._send(key, "DELETE", f"/v1/jobs/{view['id']}")
            if reply.status_code == 200:
                self._seen.view(reply.json())

    async def _hang_up(self, key: Key) -> None:
        try:
            async with asyncio.timeout(self._random.uniform(0.05, 1.5)):
                await self._sync(key)
        except TimeoutError:
            self._seen.answers["hung up"] += 1

    async def _ask_again(self, key: Key) -> None:
        """How is one of the jobs that were acknowledged?"""
        mine = [id for id, promise in self._seen.promises.items() if promise.key == key.name]
        if mine:
            id = self._random.choice(mine)
            reply = await self._send(key, "GET", f"/v1/jobs/{id}")
            if reply.status_code == 200:
                self._seen.view(reply.json())

    async def _prefer_async(self, key: Key) -> None:
        reply = await self._send(
            key, "POST", "/v1/images/generations", self._body(), {"Prefer": self._random.choice(PREFERENCES)}
        )
        if reply.status_code == 202:
            self._seen.acknowledged(reply.json()["id"], key.name, "prefer async")
        elif reply.status_code == 200:
            self._seen.acknowledged(reply.json()["x_sdzero"]["job"], key.name, "prefer async")

    async def _create(
        self, key: Key, body: dict[str, Any], headers: dict[str, str] | None = None, how: str = "job"
    ) -> dict[str, Any] | None:
        reply = await self._send(key, "POST", "/v1/jobs", body, headers)
        if reply.status_code != 202:
            return None
        view: dict[str, Any] = reply.json()
        self._seen.acknowledged(view["id"], key.name, how)
        self._seen.view(view)
        if headers:
            name = (key.name, headers["Idempotency-Key"])
            if self._seen.idempotent.setdefault(name, view["id"]) != view["id"]:
                self._seen.complain(f"{name}: {self._seen.idempotent[name]}, and then {view['id']}")
        return view

    async def _send(
        self,
        key: Key,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
    ) -> httpx.Response:
        reply = await self._http.request(
            method, f"{self._edge()}{path}", json=body, headers=self._headers(key) | (headers or {})
        )
        self._count(reply.status_code, _json(reply), f"{method} {path}")
        return reply

    def _count(self, status: int, body: dict[str, Any], what: str) -> None:
        if status < 300:
            self._seen.answers[str(status)] += 1
            return
        code = body.get("error", {}).get("code", "of no kind")
        self._seen.answers[f"{status} {code}"] += 1
        if status not in PARDONED or code == "internal":
            self._seen.complain(f"{what}: {status} {body}")

    def _answered(self, key: Key, facts: dict[str, Any], how: str) -> None:
        if facts["cached"]:
            self._seen.hits.add(facts["job"])
        else:
            self._seen.acknowledged(facts["job"], key.name, how)

    def _edge(self) -> str:
        return self._random.choice(self._edges)

    def _headers(self, key: Key) -> dict[str, str]:
        return {"Authorization": f"Bearer {key.secret}"}

    def _webhook(self) -> dict[str, str]:
        return {"webhook_url": f"{self._webhooks}/hooks/{self._random.randrange(4)}"}

    def _body(self) -> dict[str, Any]:
        """What nobody else has asked for; half of the time without a seed."""
        draw = self._random
        body: dict[str, Any] = {
            "prompt": draw.choice(PROMPTS),
            "n": draw.choice((1, 1, 1, 2)),
            "size": draw.choice(("64x64", "64x64", "96x64", "128x128")),
            "num_inference_steps": draw.choice((2, 4, 8, 30)),
            "output_format": draw.choice(("png", "png", "webp", "jpeg")),
        }
        return body | ({"seed": draw.getrandbits(31)} if draw.random() < 0.5 else {})

    def _popular(self) -> dict[str, Any]:
        number = self._random.randrange(12)
        return {"prompt": PROMPTS[number % 4], "n": 1, "size": "96x64", "num_inference_steps": 6, "seed": number}


def _json(reply: httpx.Response) -> dict[str, Any]:
    try:
        return dict(reply.json())
    except ValueError:
        return {"not JSON": reply.text}


PREFERENCES = ("respond-async", "wait=1")


def _position(id: str) -> tuple[int, ...]:
    return tuple(int(part) for part in id.split("-"))
