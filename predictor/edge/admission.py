"""Who may wake a GPU: one request from plain fields to a job, refused as early and as cheaply as can be.

    fields ─► resolved ─► moderated ─► an SDK's retry? the job that it left
                                   └─► cached?          its result, for nothing
                                   └─► in time? quota? may it wake? ─► admitted: joined, or claimed by a dispatcher

Nothing here speaks with the predictor, with one exception: a deployment that was never told its model's capabilities
asks for them on behalf of its first request, if some model could do what that wants, and its caller may wake a GPU.
"""

import hashlib
import secrets
import uuid
from collections.abc import Callable
from datetime import UTC, datetime

import msgspec

from predictor.asgi.tracing import Tracer
from predictor.core.account import Caller, megapixel_steps
from predictor.core.clip_tokens import check_length
from predictor.core.fingerprint import fingerprint
from predictor.core.jobs import Generation, Job, JobKind, JobState, withheld
from predictor.core.problems import NotFound, QuotaExceeded, TooSlow
from predictor.core.request import ANY_MODEL, Capabilities, resolve
from predictor.edge.dispatcher import LEASE, Dispatcher
from predictor.edge.metrics import Metrics
from predictor.edge.model import Model
from predictor.edge.moderation import Moderation
from predictor.edge.patience import Patience
from predictor.edge.settings import EdgeSettings
from predictor.edge.stores.cache import ResultCache
from predictor.edge.stores.images import Images
from predictor.edge.stores.jobs import Admission, Jobs
from predictor.edge.stores.ledger import Ledger, Line
from predictor.edge.stores.quotas import Quotas
from predictor.edge.wake import Watch

LONGEST_RETRY = 120.0  # seconds; OpenAI's SDKs give up on a longer Retry-After
Fields = dict[str, object]  # as `core.request.resolve` takes them


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """What a caller wants, whatever the dialect."""

    fields: Callable[[Capabilities], Fields]  # what they mean may depend on the model; raises InvalidField
    request_id: str
    patience: Patience = Patience()
    kind: JobKind = "sync"
    retry: bool = False  # an SDK sends it again
    idempotency_key: str | None = None
    webhook: str | None = None
    end_user: str | None = None
    previews: bool = False
    low_moderation: bool = False

    def hash(self, fields: Fields) -> str:
        """Of what was asked, before anything was drawn or filled in: equal for a request and its retry."""
        canonical = msgspec.json.encode([self.kind, fields, self.webhook], order="deterministic")
        return hashlib.sha256(canonical).hexdigest()


class Admissions:
    """The decision, and what it needs to know."""

    def __init__(
        self,
        settings: EdgeSettings,
        *,
        model: Model,
        moderation: Moderation,
        cache: ResultCache,
        images: Images,
        jobs: Jobs,
        ledger: Ledger,
        quotas: Quotas,
        watch: Watch,
        dispatcher: Dispatcher,
        metrics: Metrics,
        tracer: Tracer,
        clock: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._model = model
        self._moderation = moderation
        self._cache = cache
        self._images = images
        self._jobs = jobs
        self._ledger = ledger
        self._quotas = quotas
        self._watch = watch
        self._dispatcher = dispatcher
        self._metrics = metrics
        self._tracer = tracer
        self._clock = clock

    @property
    def known(self) -> Capabilities | None:
        """What the model can do, if anybody has told."""
        return self._model.known

    async def capabilities(self, caller: Caller) -> Capabilities:
        """What the model can do.

        Raises:
            Problem: nobody has told, and the caller may not wake a GPU for that; or what came of it.
        """
        return self._model.known or await self._learned(caller, 0.0, Patience(), self._clock())

    async def admit(self, caller: Caller, ask: Ask) -> Job:
        """The job that answers `ask`: a new one, one that an earlier try has left, or one that has its result already.

        Raises:
            Problem: why there is none; nothing was charged then, and nobody was woken but to tell of the model.
        """
        now = self._clock()
        if (capabilities := self._model.known) is None:
            least, _ = resolve(ask.fields(ANY_MODEL), ANY_MODEL, 0)
            self._moderation.prompt(caller, least, low=ask.low_moderation)
            capabilities = await self._learned(caller, megapixel_steps(least), ask.patience, now)
        fields = ask.fields(capabilities)
        request, encoding = resolve(fields, capabilities, secrets.randbelow(2**32))
        check_length(request, capabilities.tokenizers)
        verdict = self._moderation.prompt(caller, request, low=ask.low_moderation)
        body_hash = ask.hash(fields)
        if ask.retry and ask.kind == "sync" and (left := await self._left_behind(caller, body_hash, now)):
            return left
        job = Job(
            id=f"job_{uuid.uuid4().hex}",
            kind=ask.kind,
            tenant=caller.tenant,
            key_id=caller.key_id,
            request_id=ask.request_id,
            created=now,
            generation=Generation(
                id=f"gen_{uuid.uuid4().hex}",
                tenant=caller.tenant,
                request=request,
                revision=capabilities.revision,
                fingerprint=fingerprint(request, capabilities.revision),
                cacheable="seed" in fields,
                created=now,
                deadline=now + self._settings.timeout_seconds,
            ),
            encoding=encoding,
            body_hash=body_hash,
            idempotency_key=ask.idempotency_key,
            webhook=ask.webhook,
            end_user=ask.end_user,
            verdict=verdict,
        )
        cached = await self._cached(job)
        if cached and ask.kind == "sync" and ask.idempotency_key is None:
            return self._answered(job, cached, caller, now)
        return await self._admitted(caller, job, cached, now, ask.patience, previews=ask.previews)

    def eta(self, job: Job) -> float:
        """Seconds until an active job is done, as far as this edge can tell."""
        return self._watch.eta(self._clock(), megapixel_steps(job.generation.request))

    async def replay(self, caller: Caller, original: Job, request_id: str) -> Job:
        """A job that makes the pictures of `original` once more, past cache and joining."""
        now = self._clock()
        capabilities = await self.capabilities(caller)
        if capabilities.revision != original.generation.revision:
            raise NotFound(f"revision: the job was made by {original.generation.revision}, which is not served now")
        generation = msgspec.structs.replace(
            original.generation,
            id=f"gen_{uuid.uuid4().hex}",
            tenant=caller.tenant,
            cacheable=False,
            state="waiting",
            attempt=0,
            created=now,
            deadline=now + self._settings.timeout_seconds,
            started=None,
            finished=None,
            result=None,
            problem=None,
        )
        job = Job(
            id=f"job_{uuid.uuid4().hex}",
            kind="job",
            tenant=caller.tenant,
            key_id=caller.key_id,
            request_id=request_id,
            created=now,
            generation=generation,
            encoding=original.encoding,
            replay_of=original.id,
            verdict=original.verdict,
        )
        return await self._admitted(caller, job, None, now, Patience(), previews=False)

    async def _learned(self, caller: Caller, cost: float, patience: Patience, now: float) -> Capabilities:
        """What the predictor says that the model can do, for a request of this cost at least; it may be woken."""
        await self._charge(caller, cost, patience, now)
        deadline = patience.earliest or now + self._settings.timeout_seconds
        if self._watch.sleeps(now):
            self._metrics.wakes.inc()
        self._watch.sent(now)
        answered = False
        try:
            capabilities = await self._model.capabilities(deadline - now)
            answered = True
            self._watch.told(self._clock())
        finally:
            self._watch.ended(self._clock(), answered=answered)
            await self._quotas.refund(caller, cost)  # what it does cost is charged when that is known
        return capabilities

    async def _admitted(
        self, caller: Caller, job: Job, cached: Generation | None, now: float, patience: Patience, *, previews: bool
    ) -> Job:
        cost = 0.0
        if cached is None:
            cost = megapixel_steps(job.generation.request)
            await self._charge(caller, cost, patience, now)
            # Before anybody can see the generation, for then it may be claimed already.
            self._tracer.keep(job.generation.id)
        try:
            admitted = await self._jobs.admit(
                Admission(
                    job=job,
                    limits=caller.limits,
                    join_key=self._key(job) if job.generation.cacheable else None,
                    cached=cached,
                    holder=self._dispatcher.edge if job.kind == "sync" else None,
                    held_until=now + LEASE if job.kind == "sync" else None,
                    prompt=self._ledger.prompt(job.generation.request.prompt),
                ),
                now,
                self._settings.waiting,
            )
        except BaseException:
            await self._quotas.refund(caller, cost)
            raise
        if cost and (not admitted.fresh or admitted.job.joined):
            await self._quotas.refund(caller, cost)
        outcome = "hit" if cached else "joined" if admitted.job.joined else "miss"
        self._metrics.cache.labels(outcome).inc()
        self._dispatcher.nudge(previews_of=admitted.job.generation.id if previews else None)
        return admitted.job

    async def _charge(self, caller: Caller, cost: float, patience: Patience, now: float) -> None:
        """What must hold before a GPU is asked for anything, the cheapest first."""
        if self._watch.surely_sleeps(now):
            await self._quotas.may_wake(caller)
        _, ahead = await self._jobs.waiting()
        if self._watch.sleeps(now) and (last := await self._jobs.last_answer()) is not None:
            self._watch.seen_awake(last)
        eta = self._watch.eta(now, ahead + cost)
        if patience.earliest is not None and now + eta > patience.earliest:
            raise TooSlow(
                f"the images would be done in about {eta:.0f} s, and the client waits {patience.earliest - now:.0f} s; "
                "give it more time, ask for a job (POST /v1/jobs), or send Prefer: respond-async",
                retry_after=min(eta, LONGEST_RETRY),
            )
        if limit := caller.limits.gpu_seconds_per_month:
            month = datetime.fromtimestamp(now, UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
            spent = await self._ledger.gpu_seconds(caller.key_id, month.timestamp())
            if spent >= limit:
                raise QuotaExceeded(
                    f"gpu_seconds_per_month: {spent:.1f} of {limit} are spent", retry_after=LONGEST_RETRY
                )
        await self._quotas.charge(caller, cost)
        if not ahead and self._watch.sleeps(now):
            self._watch.seen_asleep(now)
            try:
                await self._quotas.wake(caller)
            except BaseException:
                await self._quotas.refund(caller, cost)
                raise

    async def _left_behind(self, caller: Caller, body_hash: str, now: float) -> Job | None:
        """The job of the same request whose connection was lost: the SDK asks again, and the GPU need not."""
        job = await self._jobs.retried(caller.key_id, body_hash, now - self._settings.timeout_seconds)
        if job is not None and job.state == "active":
            await self._jobs.hold(job.id, self._dispatcher.edge, now + LEASE)
        return job

    async def _cached(self, job: Job) -> Generation | None:
        """A finished generation with the same pixels, whose images are still there."""
        generation, age = job.generation, self._settings.cache_seconds
        if not generation.cacheable or not age:
            return None
        key = self._key(job)
        found = await self._cache.get(key)
        if found is None:
            scope = generation.tenant if self._settings.cache_scope == "tenant" else None
            found = await self._jobs.finished(scope, generation.fingerprint, self._clock() - age)
            if found is None:
                return None
            await self._cache.put(key, found)
        if found.result is None or found.result.revision != generation.revision:
            return None
        try:
            for image in found.result.images:
                if await self._cache.image(image.name) is None:
                    await self._cache.put_image(image.name, await self._images.get(image.name))
        except NotFound:
            return None  # its time was over
        return found

    def _answered(self, job: Job, cached: Generation, caller: Caller, now: float) -> Job:
        """A synchronous hit: no row of its own, and a line in the ledger."""
        assert cached.result is not None
        self._metrics.cache.labels("hit").inc()
        problem = withheld(job, cached.result)
        state: JobState = "failed" if problem else "done"
        job = msgspec.structs.replace(job, state=state, finished=now, cached=True, generation=cached, problem=problem)
        self._ledger.note(
            Line(
                at=now,
                tenant=caller.tenant,
                key_id=caller.key_id,
                request_id=job.request_id,
                job_id=job.id,
                action="cached",
                outcome=problem.code if problem else "ok",
                cache_hits=1,
                prompt=self._ledger.prompt(job.generation.request.prompt),
            )
        )
        return job

    def _key(self, job: Job) -> str:
        scope = job.tenant if self._settings.cache_scope == "tenant" else ""
        return f"{scope}:{job.generation.fingerprint}"
