"""Whether everything adds up when all is quiet: what clients were told, the database, the images, the webhooks."""

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime

import httpx
from standardwebhooks import Webhook

from tests.edge.chaos.load import Key
from tests.edge.chaos.seen import Seen, dimensions
from tests.edge.chaos.world import World
from tests.edge.http_servers import Came

# Notes whatever changes in a row that must not change any more.
WATCH = (
    "CREATE TABLE second_thoughts (at timestamptz DEFAULT now(), what text, before jsonb, after jsonb)",
    """
    CREATE FUNCTION note_second_thought() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
      INSERT INTO second_thoughts (what, before, after)
      VALUES (TG_TABLE_NAME || ' ' || TG_OP, to_jsonb(OLD), to_jsonb(NEW));
      RETURN NULL;
    END $$
    """,
    """
    CREATE TRIGGER ended AFTER UPDATE OR DELETE ON jobs
    FOR EACH ROW WHEN (OLD.state <> 'active') EXECUTE FUNCTION note_second_thought()
    """,
    """
    CREATE TRIGGER ended AFTER UPDATE OR DELETE ON generations
    FOR EACH ROW WHEN (OLD.state NOT IN ('waiting', 'running')) EXECUTE FUNCTION note_second_thought()
    """,
    """
    CREATE TRIGGER written AFTER UPDATE OR DELETE ON ledger
    FOR EACH ROW EXECUTE FUNCTION note_second_thought()
    """,
    """
    CREATE TRIGGER written AFTER UPDATE ON deliveries
    FOR EACH ROW WHEN (
      OLD.state <> 'pending'
      OR (OLD.id, OLD.job_id, OLD.url, OLD.body) IS DISTINCT FROM (NEW.id, NEW.job_id, NEW.url, NEW.body)
    ) EXECUTE FUNCTION note_second_thought()
    """,
)
BUSY = """
SELECT (SELECT count(*) FROM jobs WHERE state = 'active')
     + (SELECT count(*) FROM generations WHERE state IN ('waiting', 'running'))
     + (SELECT count(*) FROM deliveries WHERE state = 'pending') AS things
"""
# What an edge says that starts without its database, or that is told to stop while its clients still listen.
PARDONED_CAUSES = ("predictor.core.problems.StoreUnavailable", "asyncio.exceptions.CancelledError")
COUNTED = ("images", "megapixel_steps", "gpu_seconds", "cold_starts", "cache_hits")


class Books:
    """What is left at the end. `complaints` is empty when it adds up; `counts` is for people."""

    def __init__(self, world: World, keys: list[Key], admin: str, seen: Seen, came: list[Came]) -> None:
        self.complaints = list(seen.complaints)
        self.counts: dict[str, object] = {}
        self._world = world
        self._keys = keys
        self._admin = admin
        self._seen = seen
        self._came = came
        self._jobs = {str(job["id"]): job for job in world.rows("SELECT * FROM jobs")}
        self._generations = {str(one["id"]): one for one in world.rows("SELECT * FROM generations")}
        self._ledger = world.rows("SELECT * FROM ledger WHERE action NOT LIKE 'key.%'")

    def audit(self) -> None:
        """Compare everything with everything."""
        for check in (
            self._nothing_is_left,
            self._nothing_changed_its_mind,
            self._promises_are_kept,
            self._images_are_there,
            self._each_end_is_booked_once,
            self._each_generation_is_paid_once,
            self._usage_is_the_sum,
            self._webhooks_arrived,
            self._quotas_are_free,
            self._nobody_logged_a_bug,
        ):
            self.complaints += list(check())

    def _nothing_is_left(self) -> Iterator[str]:
        for job in self._jobs.values():
            if job["state"] == "active" or job["held_until"] is not None:
                yield f"left over: {job}"
        for generation in self._generations.values():
            if generation["state"] in ("waiting", "running") or generation["lease_until"] or generation["active_key"]:
                yield f"left over: {generation}"
        for delivery in self._world.rows("SELECT * FROM deliveries WHERE state = 'pending' OR lease_until IS NOT NULL"):
            yield f"left over: {delivery}"

    def _nothing_changed_its_mind(self) -> Iterator[str]:
        for row in self._world.rows("SELECT * FROM second_thoughts"):
            yield f"changed after its end: {row}"

    def _promises_are_kept(self) -> Iterator[str]:
        self.counts["jobs acknowledged"] = len(self._seen.promises)
        self.counts["of them by how"] = dict(Counter(promise.how for promise in self._seen.promises.values()))
        self.counts["jobs in the database"] = len(self._jobs)
        self.counts["of them by end"] = dict(Counter(str(job["state"]) for job in self._jobs.values()))
        failed = (json.loads(str(job["problem"]))["code"] for job in self._jobs.values() if job["state"] == "failed")
        self.counts["failed by code"] = dict(Counter(failed))
        for id, promise in self._seen.promises.items():
            job = self._jobs.get(id)
            if job is None:
                yield f"{id}: acknowledged ({promise.how}), and not in the database"
                continue
            if promise.end is not None and promise.end[:2] != (job["state"], job["finished"]):
                yield f"{id}: told {promise.end}, is {job['state']} at {job['finished']}"
            if promise.how in ("sync", "stream") and job["state"] != "done":
                yield f"{id}: its pictures came, and it is {job['state']}"
            if job["problem"] is not None and json.loads(str(job["problem"]))["code"] == "internal":
                yield f"{id}: {job['problem']}"
        names = defaultdict(set)
        for job in self._jobs.values():
            if job["idempotency_key"] is not None:
                names[job["key_id"], job["idempotency_key"]].add(job["id"])
        yield from (f"{name}: {ids}" for name, ids in names.items() if len(ids) != 1)

    def _images_are_there(self) -> Iterator[str]:
        """Every job that is done has its images, each as large as was asked, whatever edge is asked for them."""
        fetched = 0
        names = defaultdict(set)
        with httpx.Client(timeout=60.0, trust_env=False) as client:
            for number, job in enumerate(self._jobs.values()):
                if job["state"] != "done":
                    continue
                generation = self._generations[str(job["generation_id"])]
                request, result = (json.loads(str(generation[name])) for name in ("request", "result"))
                edge = self._world.edges[number % 2]
                view = client.get(f"{edge.url}/v1/jobs/{job['id']}", headers=_bearer(self._admin)).json()
                if len(view["images"]) != request["num_images"]:
                    yield f"{job['id']}: {len(view['images'])} images of {request['num_images']}"
                for image in view["images"]:
                    reply = client.get(image["url"])
                    found = dimensions(reply.content) if reply.status_code == 200 else f"HTTP {reply.status_code}"
                    if found != f"{request['width']}x{request['height']}":
                        yield f"{job['id']}: {found} instead of an image: {image}"
                    fetched += 1
                if generation["cacheable"]:
                    stored = tuple(image["name"] for image in result["images"])
                    names[generation["tenant"], generation["fingerprint"]].add(stored)
        self.counts["images fetched"] = fetched
        yield from (f"{of}: the same request has different pictures" for of, sets in names.items() if len(sets) > 1)

    def _each_end_is_booked_once(self) -> Iterator[str]:
        lines = Counter(str(line["job_id"]) for line in self._ledger if line["job_id"] is not None)
        self.counts["lines of the ledger"] = len(self._ledger)
        yield from (f"{id}: {lines[id]} lines in the ledger" for id in self._jobs if lines[id] != 1)
        # A hit of a synchronous request costs nothing and has no row: an edge that is killed takes half a second's
        # worth of their lines with it.
        strangers = set(lines) - set(self._jobs) - self._seen.hits
        hits = {str(line["job_id"]) for line in self._ledger if line["action"] == "cached"}
        self.counts["synchronous hits"] = len(self._seen.hits)
        self.counts["of them without a line, whose edge was killed"] = len(self._seen.hits - set(lines))
        yield from (f"{id}: a line in the ledger, and no such job" for id in strangers - hits)
        for line in self._ledger:
            job = self._jobs.get(str(line["job_id"]))
            if job is None:
                continue
            problem = json.loads(str(job["problem"]))["code"] if job["state"] == "failed" else None
            outcome = {"done": "ok", "cancelled": "cancelled"}.get(str(job["state"]), problem)
            action = "cached" if job["cached"] else "joined" if job["joined"] else "generate"
            if (line["outcome"], line["action"], line["key_id"]) != (outcome, action, job["key_id"]):
                yield f"{job['id']}: booked as {line}, is {job}"

    def _each_generation_is_paid_once(self) -> Iterator[str]:
        paid = defaultdict(list)
        for line in self._ledger:
            if line["images"]:
                paid[json.loads(str(line["facts"]))["generation"]].append(line)
        done = {id: one for id, one in self._generations.items() if one["state"] == "done"}
        self.counts["generations done"] = len(done)
        self.counts["starts of generations"] = sum(int(str(one["attempt"])) for one in self._generations.values())
        for id, generation in done.items():
            result = json.loads(str(generation["result"]))
            whole = (len(result["images"]), generation["megapixel_steps"], result["gpu_seconds"])
            lines = [(line["images"], line["megapixel_steps"], line["gpu_seconds"]) for line in paid[id]]
            if lines != [whole]:
                yield f"{id}: came to {whole}, booked as {lines}"
        yield from (f"{id}: paid for, and not done" for id in set(paid) - set(done))

    def _usage_is_the_sum(self) -> Iterator[str]:
        sums: dict[str, Counter[str]] = defaultdict(Counter)
        for line in self._ledger:
            for name in COUNTED:
                sums[str(line["key_id"])][name] += line[name]  # type: ignore[operator]
            sums[str(line["key_id"])]["requests"] += 1
            sums[str(line["key_id"])]["failed"] += line["outcome"] != "ok"
        reply = httpx.get(f"{self._world.edges[0].url}/v1/usage", headers=_bearer(self._admin), timeout=60.0)
        usage = {key["key_id"]: key for key in reply.json()["data"]}
        if set(usage) != set(sums):
            yield f"usage knows the keys {set(usage)}, the ledger {set(sums)}"
        for key_id in set(usage) & set(sums):
            for name, value in sums[key_id].items():
                if not math.isclose(usage[key_id][name], value, rel_tol=1e-9, abs_tol=1e-9):
                    yield f"{key_id}: usage says {name} {usage[key_id][name]}, the ledger {value}"
        for name in COUNTED:
            self.counts[f"usage: {name.replace('_', ' ')}"] = round(sum(key[name] for key in usage.values()), 3)

    def _webhooks_arrived(self) -> Iterator[str]:
        secrets = {}
        for key in self._keys:
            reply = httpx.get(f"{self._world.edges[1].url}/v1/webhook-secret", headers=_bearer(key.secret))
            secrets[key.name] = reply.json()["secret"]
        tries, of_job = defaultdict(list), defaultdict(set)
        for came in self._came:
            tries[came.headers["webhook-id"]].append(came.body)
            view = json.loads(came.body)["data"]
            of_job[view["id"]].add(came.headers["webhook-id"])
            job = self._jobs.get(view["id"])
            if job is None or (view["state"], view["finished"]) != (job["state"], job["finished"]):
                yield f"a webhook says {view['state']} at {view['finished']} of {job}"
                continue
            if not any(_verifies(secret, came) for secret in secrets.values()):
                yield f"{view['id']}: the signature of its webhook is wrong"
        wanted = {id for id, job in self._jobs.items() if job["webhook"] is not None}
        self.counts["jobs with a webhook"] = len(wanted)
        self.counts["webhooks that arrived"] = len(self._came)
        yield from (f"{id}: its webhook never came" for id in wanted - set(of_job))
        yield from (f"{id}: a webhook nobody asked for" for id in set(of_job) - wanted)
        yield from (f"{id}: webhooks {ids}" for id, ids in of_job.items() if len(ids) > 1)
        yield from (f"{id}: bodies differ: {bodies}" for id, bodies in tries.items() if len(set(bodies)) > 1)
        dead = self._world.rows("SELECT * FROM deliveries WHERE state <> 'delivered'")
        yield from (f"a webhook was not delivered: {row}" for row in dead)

    def _quotas_are_free(self) -> Iterator[str]:
        """A key with a number of concurrent jobs can have that many at once again."""
        for key in self._keys:
            with httpx.Client(base_url=self._world.edges[0].url, headers=_bearer(key.secret), timeout=60.0) as client:
                for number in range(key.concurrent_jobs):
                    reply = client.post("/v1/jobs", json={"prompt": "a ring", "num_inference_steps": 100})
                    if reply.status_code != 202:
                        yield f"{key.name}: job {number + 1} of {key.concurrent_jobs} was refused: {reply.text}"

    def _nobody_logged_a_bug(self) -> Iterator[str]:
        warnings: Counter[str] = Counter()
        for edge in self._world.edges:
            for line in edge.log.splitlines():
                if not line.startswith("{"):
                    yield f"{edge.folder.name} says outside of its log: {line[:500]}"
                    continue
                said = json.loads(line)
                event = str(said["event"])
                if said["level"] not in ("debug", "info"):
                    warnings[event.partition("\n")[0][:60]] += 1
                trace = said.get("exception", event if event.startswith("Traceback") else "")
                cause = trace.rstrip().rpartition("\n")[2]
                if trace and not cause.startswith(PARDONED_CAUSES):
                    yield f"{edge.folder.name} logged {event[:60]!r}: {trace[-3000:]}"
        self.counts["warnings of the edges"] = dict(warnings.most_common(12))


def busy(world: World) -> bool:
    """Whether anything is still under way."""
    return bool(world.rows(BUSY)[0]["things"])


def _bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def _verifies(secret: str, came: Came) -> bool:
    """Whether it was signed with the secret; how old it may be is the receiver's to say."""
    id, at = came.headers["webhook-id"], datetime.fromtimestamp(int(came.headers["webhook-timestamp"]), UTC)
    return Webhook(secret).sign(id, at, came.body.decode()) == came.headers["webhook-signature"]
