"""The real server process with the fake engine; prints as JSON what it has imported when it listens, and what works.

`imports_when_listening.py SERVER_SETTINGS_AS_JSON`
"""

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from predictor.lazily import Promise
from predictor.server.app import main
from predictor.server.coldstart import ColdStart
from predictor.settings import EngineSettings, ServerSettings


def data_frames() -> bool:
    from kserve.protocol.infer_type import InferInput, InferRequest

    column = InferInput("size", [2], "INT32", data=[3, 4])
    return InferRequest("sd", [column]).as_dataframe()["size"].sum() == 7


def cloud_events() -> bool:
    from kserve.protocol.dataplane import DataPlane
    from kserve.utils.utils import create_response_cloudevent

    headers, body = create_response_cloudevent("sd", {"a": 1}, {"id": "7"}, binary_event=True)
    decoded, _ = DataPlane(None).decode(body, headers | {"content-type": "application/json"})
    return json.loads(body) == decoded == {"a": 1}


def clients() -> bool:
    import httpx
    from kserve.model import InferenceRESTClient, RESTConfig
    from kserve.protocol import dataplane

    client = InferenceRESTClient(RESTConfig(protocol="v2", timeout=3))
    return client._client.timeout.read == 3 and issubclass(httpx.ConnectError, dataplane.HTTPError)


def kubernetes() -> bool:
    import kserve

    return kserve.V1beta1InferenceService(kind="x").kind == "x" and callable(kserve.KServeClient)


def openapi() -> bool:
    from fastapi.security import OAuth2PasswordBearer
    from kserve.model_server import app

    return "/metrics" in app.openapi()["paths"] and OAuth2PasswordBearer("token").model.type_.value == "oauth2"


def the_rest() -> bool:
    import watchfiles
    import yaml
    from kserve.protocol.rest.timeseries.config import maybe_register_time_series_endpoints
    from kserve.utils.utils import cpu_count

    return all((yaml.safe_load("a: 1"), watchfiles.Change.added, cpu_count() > 0)) and (
        maybe_register_time_series_endpoints.__module__ == "kserve.protocol.rest.timeseries.config"
    )


def promises(value: object) -> Iterator[Promise]:
    """Those that a table holds."""
    if isinstance(value, Promise):
        yield value
    elif isinstance(value, dict):
        yield from promises([*value, *value.values()])
    elif isinstance(value, list | tuple | set | frozenset):
        for one in value:
            yield from promises(one)


def look() -> None:
    loaded = sorted(
        name for name, module in sys.modules.items() if type(module).__name__ not in {"NoneType", "_Unread"}
    )
    ours = {name: vars(module) for name, module in sys.modules.items() if name.split(".")[0] == "predictor"}
    kept = [f"{name}.{key}" for name, table in ours.items() for key, value in table.items() for _ in promises(value)]
    uses: list[Callable[[], bool]] = [data_frames, cloud_events, clients, kubernetes, openapi, the_rest]
    works: dict[str, Any] = {use.__name__: bool(use()) for use in uses}
    print(json.dumps({"loaded": loaded, "kept": kept, "works": works}))


def once(self: ColdStart, name: str, since: str = "") -> None:
    """Instead of marking `listening`."""
    if name == "listening":
        look()
        os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    ColdStart.once = once  # type: ignore[method-assign]
    fake = (sys.executable, str(Path(__file__).with_name("fake_engine.py")))
    settings = msgspec.json.decode(sys.argv[1], type=ServerSettings)
    sys.exit(main(EngineSettings(model="none"), settings, command=fake))
