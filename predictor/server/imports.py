"""What KServe's SDK imports and a server of pictures never touches: most of what its start took."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from types import ModuleType

from predictor.lazily import postponed, stand_ins

# Executed when somebody uses them.
LATER = (
    "kserve",  # its modules are imported one by one; the package itself adds Kubernetes' client and 100 API objects
    "kserve.inference_client",  # a transformer's way to its predictor
    "kserve.protocol.rest.multiprocess.server",  # several HTTP workers
    "cloudevents.conversion",  # for KServe's own REST routes, which ours stand before
    "cloudevents.exceptions",
    "cloudevents.http",
    "cloudevents.sdk",
    "cloudevents.sdk.converters",
    "cloudevents.sdk.converters.util",
    "fastapi.openapi.models",  # the description of routes, and logging in to them
    "fastapi.security",
    "fastapi.security.oauth2",
    "httpx",
    "numpy",  # the first request needs it: see `Packer.warm`
    "pandas",  # tensors as data frames
    "psutil",  # the number of CPUs
    "watchfiles",  # renewed TLS certificates
    "yaml",  # log settings from a file
)
# Optional to those who import them.
MISSING = (
    "greenlet",  # structlog's context in greenlets
    "rich",  # structlog's coloured tracebacks
)
UNSPOKEN = (
    "kserve.protocol.rest.openai",  # found by way of vLLM, if that is installed
    "pydantic.v1",  # FastAPI asks of each route whether it is described in the old way
    "websockets",
    "wsproto",
)


@contextmanager
def only_what_serves() -> Iterator[None]:
    """Import KServe's server without the rest of it; name its modules, for `from kserve import ...` means all of it."""
    no_time_series = ModuleType("kserve.protocol.rest.timeseries.config")
    # What the real one answers to a repository without such models, after importing what describes them.
    vars(no_time_series).update(maybe_register_time_series_endpoints=lambda *_: False)
    missing = dict.fromkeys(MISSING)
    with stand_ins(missing | {no_time_series.__name__: no_time_series}), postponed(*LATER):
        # KServe catches this one: a promise is no exception.
        import httpx
        from httpx._exceptions import HTTPError

        vars(httpx).update(HTTPError=HTTPError)
        yield


def only_what_is_spoken() -> AbstractContextManager[None]:
    """Run KServe's server without the protocols that it would look for: each is optional to who asks for it."""
    return stand_ins(dict.fromkeys(UNSPOKEN))
