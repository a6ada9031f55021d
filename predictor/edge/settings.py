"""Settings of the edge, and how KServe spells some of them."""

import argparse
from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec

from predictor.core.account import Limits
from predictor.settings import PREFIX, doc

KEY = r"sk-sdz-[A-Za-z0-9_-]{43}"  # 256 bits, so that no salt and no slow hash are needed


class EdgeSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The edge process: where the predictor is, who may ask, and where things are kept."""

    predictor_url: Annotated[
        str, doc("address of the predictor's v2 REST API; asked only on behalf of a client", pattern=r"^https?://\S+\Z")
    ]
    model_name: Annotated[str, doc("the predictor's model, and its name here", pattern=r"^[A-Za-z0-9._-]+\Z")] = "sd"
    model_aliases: Annotated[
        str, doc("further names that clients may use for it, such as gpt-image-1; separated by commas")
    ] = ""
    capabilities: Annotated[
        str,
        doc("JSON file that `sdzero capabilities` wrote of the model; without it the first request is checked late"),
    ] = ""
    http_port: Annotated[int, doc("all of the edge's HTTP", ge=1, le=65535)] = 8080
    metrics_port: Annotated[
        int,
        doc("/metrics for Prometheus, on a port of its own that no client reaches; 0 switches it off", ge=0, le=65535),
    ] = 9090
    public_url: Annotated[
        str, doc("address at which clients reach the edge, for links; by default the one that a request came to")
    ] = ""
    data: Annotated[str, doc("folder of the database, the images and the secret, as far as no other place is set")] = (
        "data"
    )
    database_url: Annotated[
        str,
        doc(
            "postgresql://USER:PASSWORD@HOST/NAME; by default SQLite in the data folder, for one edge process",
            secret=True,
        ),
    ] = ""
    redis_url: Annotated[
        str,
        doc(
            "redis://HOST/0 for quotas, cached results and events that several edges share; by default in memory",
            secret=True,
        ),
    ] = ""
    images_url: Annotated[
        str, doc("s3://BUCKET/PREFIX, gs://… or az://…; credentials as that cloud's tools take them; by default files")
    ] = ""
    secret: Annotated[
        str,
        doc(
            "at least 32 characters that sign links and name images, the same for every edge; drawn by default",
            secret=True,
        ),
    ] = ""
    first_key: Annotated[
        str,
        doc(
            "API key with every scope, whose hash is stored at start unless it ever was: sk-sdz- and 43 characters",
            secret=True,
            pattern=rf"^({KEY})?\Z",
        ),
    ] = ""
    auth: Annotated[
        Literal["keys", "none"], doc("API keys and tokens, or nobody is asked; none is for one's own machine")
    ] = "keys"
    oidc_issuer: Annotated[str, doc("address of an OpenID provider whose tokens are taken beside API keys")] = ""
    oidc_audience: Annotated[str, doc("what a token's `aud` must name")] = "sdzero"
    oidc_tenant_claim: Annotated[str, doc("the claim that says whose pictures a token's bearer sees")] = "sub"
    megapixel_steps_per_minute: Annotated[
        int, doc("default quota of a key: pixels x steps x images / 10^6; 0 is none", ge=0, le=2**40)
    ] = 0
    concurrent_jobs: Annotated[int, doc("default quota of a key: unfinished jobs; 0 is none", ge=0, le=2**20)] = 0
    gpu_seconds_per_month: Annotated[
        int, doc("default quota of a key, per calendar month in UTC; 0 is none", ge=0, le=2**40)
    ] = 0
    wakes_per_hour: Annotated[
        int, doc("default quota of a key: how often it may wake a sleeping GPU; 0 is none", ge=0, le=2**20)
    ] = 0
    quota_failure: Annotated[
        Literal["closed", "open"], doc("quotas cannot be read: refuse what would cost something, or let it pass")
    ] = "closed"
    idle_seconds: Annotated[
        float, doc("how long the predictor stays after its last request: Knative's window and retention", ge=0)
    ] = 60.0
    cold_start_seconds: Annotated[
        float, doc("first guess of a cold start, until this deployment's own are known", gt=0, le=3600)
    ] = 30.0
    watch_pods: Annotated[
        str,
        doc(
            "NAMESPACE/SERVICE, the predictor's Knative service: tells who waits what a start waits for, if this pod's "
            "account may list and watch pods and events there; by default nothing is watched",
            pattern=r"^([a-z0-9-]+/[a-z0-9.-]+)?\Z",
        ),
    ] = ""
    images_in_flight: Annotated[
        int, doc("images that the predictor is asked for at once; the rest wait here, in turn", ge=1, le=4096)
    ] = 32
    waiting: Annotated[
        int, doc("unfinished jobs of all keys together; beyond it requests are refused at once", ge=1, le=2**20)
    ] = 10000
    timeout_seconds: Annotated[float, doc("a generation's time from admission to its end", gt=0, le=86400)] = 600.0
    attempts: Annotated[int, doc("how often a generation is started when predictors die under it", ge=1, le=100)] = 3
    grace_seconds: Annotated[
        float, doc("how long SIGTERM lets connections finish; jobs go on in another edge", ge=0, le=3600)
    ] = 30.0
    forwarded_hops: Annotated[
        int,
        doc("proxies in front of the edge that add to X-Forwarded-For; 0 takes the peer for the client", ge=0, le=10),
    ] = 0
    max_body_bytes: Annotated[int, doc("bytes of one HTTP body; a request is text", ge=1024, le=2**30)] = 2**20
    body_seconds: Annotated[
        float, doc("a client's time for the head of a request, and again for its body", gt=0, le=600)
    ] = 10.0
    cache_seconds: Annotated[float, doc("age at which a finished result is no longer given again; 0 is off", ge=0)] = (
        86400.0
    )
    cache_bytes: Annotated[int, doc("memory for cached results, where there is no Redis", ge=0)] = 64 * 2**20
    cache_scope: Annotated[
        Literal["tenant", "deployment"], doc("whose finished results a request may be answered with")
    ] = "tenant"
    retention_days: Annotated[float, doc("age at which images are deleted; 0 keeps them", ge=0)] = 30.0
    link_seconds: Annotated[int, doc("how long a link to an image works; OpenAI's work an hour", ge=1, le=604800)] = (
        3600
    )
    image_metadata: Annotated[bool, doc("write prompt and parameters into the files, as other tools do")] = True
    audit_prompts: Annotated[bool, doc("keep prompts in the audit log; off, their keyed hash is kept")] = False
    blocklist: Annotated[str, doc("file of words and phrases, one a line, that no prompt may hold")] = ""
    classifier: Annotated[str, doc("MODULE:FUNCTION that scores pictures for the moderation policy")] = ""
    classifier_threshold: Annotated[float, doc("score from which a picture is withheld", ge=0, le=1)] = 0.5
    webhook_networks: Annotated[
        Literal["public", "any"], doc("where webhooks may go; any reaches into the cluster's own network")
    ] = "public"
    log_level: Annotated[Literal["debug", "info", "warning", "error"], doc("least severe log line that is written")] = (
        "info"
    )

    def __post_init__(self) -> None:
        if self.secret and len(self.secret) < 32:
            raise ValueError(f"--secret: got {len(self.secret)} characters; allowed: at least 32")
        if bool(self.database_url) and not self.secret:
            raise ValueError("--secret: missing; a database that edges share needs --secret, the same for all of them")

    @property
    def limits(self) -> Limits:
        """The quotas of a key that has none of its own."""
        return Limits(
            megapixel_steps_per_minute=self.megapixel_steps_per_minute,
            concurrent_jobs=self.concurrent_jobs,
            gpu_seconds_per_month=self.gpu_seconds_per_month,
            wakes_per_hour=self.wakes_per_hour,
        )

    @property
    def names(self) -> tuple[str, ...]:
        """Every name of the model, its own first."""
        return (self.model_name, *(name.strip() for name in self.model_aliases.split(",") if name.strip()))


def add_kserve_arguments(parser: argparse.ArgumentParser) -> None:
    """KServe's spellings, which it appends to the arguments of a transformer unless they are among them.

    Which ones is told by `CustomTransformer.GetContainer` of KServe 0.20
    (pkg/apis/serving/v1beta1/transformer_custom.go). There is no `--predictor_protocol` among them: KServe leaves it to
    whoever writes the transformer, and this one always speaks v2. To a custom predictor it appends nothing.
    """
    for flag in ("--model_name", "--predictor_host", "--http_port"):
        parser.add_argument(flag, dest=f"kserve_{flag[2:]}", help=argparse.SUPPRESS)
    # The transformer's containerConcurrency, which Knative's proxy keeps; an edge is one process all the same.
    parser.add_argument("--workers", type=int, help=argparse.SUPPRESS)


def as_kserve_says(given: Mapping[str, object], environ: Mapping[str, str]) -> dict[str, object]:
    """The flags `given`, with KServe's for what neither a flag nor a variable says.

    KServe does not know our spellings and appends its own beside them, so they count least.
    """
    host = given["kserve_predictor_host"]
    said = {
        "model_name": given["kserve_model_name"],
        "predictor_url": None if host is None else f"http://{host}",
        "http_port": given["kserve_http_port"],
    }
    unsaid = {name for name in said if given[name] is None and PREFIX + name.upper() not in environ}
    return {**given, **{name: said[name] for name in unsaid}}
