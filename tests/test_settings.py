import argparse
import re
from typing import Annotated, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from predictor.settings import EngineSettings, ServerSettings, add_arguments, doc, load, refuse_unknown

KINDS = (EngineSettings, ServerSettings)
MODEL = {"SDZERO_MODEL": "/models/shapes"}


def parsed(*arguments: str) -> dict[str, object]:
    parser = argparse.ArgumentParser()
    for kind in KINDS:
        add_arguments(parser, kind)
    return vars(parser.parse_args(arguments))


def exactly(message: str) -> str:
    return rf"^{re.escape(message)}\Z"


def engine(*arguments: str, **environ: str) -> EngineSettings:
    return load(EngineSettings, parsed(*arguments), {**MODEL, **environ})


def server(*arguments: str, **environ: str) -> ServerSettings:
    return load(ServerSettings, parsed(*arguments), environ)


def test_defaults() -> None:
    assert engine() == EngineSettings(model="/models/shapes")
    assert server() == ServerSettings()


@pytest.mark.parametrize("kind", KINDS)
def test_every_default_lies_within_its_own_bounds(kind: type[msgspec.Struct]) -> None:
    defaults = {field.name: field.default for field in msgspec.structs.fields(kind) if not field.required}
    msgspec.convert({**defaults, "model": "m"} if kind is EngineSettings else defaults, kind)


def test_the_flag_wins_over_the_environment() -> None:
    assert engine(SDZERO_MAX_ROWS="4").max_rows == 4
    assert engine("--max-rows", "8", SDZERO_MAX_ROWS="4").max_rows == 8
    assert engine("--model", "/models/sd15").model == "/models/sd15"


def test_an_overridden_variable_may_be_wrong() -> None:
    assert engine("--max-rows", "8", SDZERO_MAX_ROWS="many").max_rows == 8


@pytest.mark.parametrize(
    ("text", "value"), [("true", True), ("TRUE", True), ("1", True), ("false", False), ("False", False), ("0", False)]
)
def test_switches(text: str, value: bool) -> None:
    assert engine("--cuda-graphs", text).cuda_graphs is value


def test_text_stays_text() -> None:
    assert engine("--model", "15").model == "15"
    assert engine("--model", "true").model == "true"


def test_numbers() -> None:
    assert server("--timeout-seconds", "7").timeout_seconds == 7.0
    assert server("--timeout-seconds", "0.5").timeout_seconds == 0.5
    assert server("--http-port", "8000").http_port == 8000


def test_a_model_or_a_bundle_is_needed() -> None:
    message = "--model: missing; give it, or set SDZERO_MODEL: folder of a model; or give --bundle, a baked one"
    with pytest.raises(ValueError, match=exactly(message)):
        load(EngineSettings, parsed(), {})
    assert load(EngineSettings, parsed(), {"SDZERO_BUNDLE": "baked"}).bundle == "baked"


def test_falling_back_to_eager_needs_something_to_fall_back_on() -> None:
    message = "--unfit-bundle: got eager; it needs both --bundle and, to fall back on, --model"
    with pytest.raises(ValueError, match=exactly(message)):
        load(EngineSettings, parsed("--bundle", "baked", "--unfit-bundle", "eager"), {})


BAD = [
    ("--device", "tpu", "auto, cpu, cuda"),
    ("--device", "", "auto, cpu, cuda"),
    ("--max-rows", "100", "whole numbers from 1 to 64"),
    ("--max-rows", "0", "whole numbers from 1 to 64"),
    ("--max-rows", "4.5", "whole numbers from 1 to 64"),
    ("--max-rows", "many", "whole numbers from 1 to 64"),
    ("--max-rows", "9" * 30, "whole numbers from 1 to 64"),
    ("--max-body-bytes", "5", "whole numbers from 1024"),
    ("--timeout-seconds", "0", "numbers above 0 to 3600"),
    ("--timeout-seconds", "nan", "numbers above 0 to 3600"),
    ("--grace-seconds", "nan", "numbers from 0 to 3600"),
    ("--grace-seconds", "inf", "numbers from 0 to 3600"),
    ("--cuda-graphs", "yes", "true, false"),
    ("--cuda-graphs", "2", "true, false"),
    ("--model-name", "a/b", "text that matches ^[A-Za-z0-9._-]+\\Z"),
    ("--model-name", "sd\n", "text that matches ^[A-Za-z0-9._-]+\\Z"),
    ("--log-level", "", "debug, info, warning, error"),
]


@pytest.mark.parametrize(("flag", "text", "allowed"), BAD)
def test_a_bad_value_is_refused_with_what_came_and_what_is_allowed(flag: str, text: str, allowed: str) -> None:
    name = flag.removeprefix("--").replace("-", "_")
    kind: Any = EngineSettings if name in EngineSettings.__struct_fields__ else ServerSettings
    with pytest.raises(ValueError, match=exactly(f"{flag}: got {text!r}; allowed: {allowed}")):
        load(kind, parsed(f"{flag}={text}", "--model=m"), {})
    variable = f"SDZERO_{name.upper()}"
    with pytest.raises(ValueError, match=exactly(f"{variable}: got {text!r}; allowed: {allowed}")):
        load(kind, {}, {**MODEL, variable: text})


@given(
    st.sampled_from([(kind, field) for kind in KINDS for field in kind.__struct_fields__]),
    st.text(max_size=8) | st.integers().map(str) | st.floats().map(str),
)
def test_any_text_is_a_setting_within_bounds_or_refused(place: tuple[type[msgspec.Struct], str], text: str) -> None:
    kind, name = place
    refusal = ""
    try:
        settings = load(kind, {"model": "m", "bundle": "b", name: text}, {})
    except ValueError as error:
        refusal = str(error)
    if refusal:
        assert re.match(rf"--{name.replace('_', '-')}: got .*; allowed: ", refusal, re.DOTALL)
    else:
        assert msgspec.convert(msgspec.to_builtins(settings), kind) == settings


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """Settings with secrets."""

    password: Annotated[str, doc("opens it", secret=True, pattern=r"^[a-z]{8}\Z")] = ""
    pin: Annotated[int, doc("opens it as well", secret=True, ge=0, le=9999)] = 0


def test_a_secret_that_is_refused_is_not_shown() -> None:
    for flags, environ in (({"password": "Hunter2"}, {}), ({}, {"SDZERO_PASSWORD": "Hunter2"})):
        with pytest.raises(ValueError, match=r"PASSWORD|--password") as refused:
            load(Kept, flags, environ)
        assert str(refused.value).endswith(": got 7 characters; allowed: text that matches ^[a-z]{8}\\Z")
        assert refused.value.__suppress_context__
    with pytest.raises(ValueError, match=exactly("--pin: got 5 characters; allowed: whole numbers from 0 to 9999")):
        load(Kept, {"pin": "12345"}, {})
    assert load(Kept, {"password": "hunterxy"}, {}).password == "hunterxy"


# --- unknown variables


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("SDZERO_MAX_ROW", "SDZERO_MAX_ROW: no such setting; did you mean SDZERO_MAX_ROWS?"),
        ("SDZERO_TIMEOUT_SECOND", "SDZERO_TIMEOUT_SECOND: no such setting; did you mean SDZERO_TIMEOUT_SECONDS?"),
        ("SDZERO_HTP_PORT", "SDZERO_HTP_PORT: no such setting; did you mean SDZERO_HTTP_PORT?"),
        ("SDZERO_QUANTUM", "SDZERO_QUANTUM: no such setting"),
        ("SDZERO_", "SDZERO_: no such setting"),
    ],
)
def test_an_unknown_variable_is_refused(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=exactly(message)):
        refuse_unknown(KINDS, {name: "8080"})


def test_a_setting_of_another_process_is_unknown_here() -> None:
    refuse_unknown(KINDS, {"SDZERO_MAX_ROWS": "8", "SDZERO_HTTP_PORT": "8080"})
    with pytest.raises(ValueError, match="SDZERO_HTTP_PORT: no such setting"):
        refuse_unknown([EngineSettings], {"SDZERO_HTTP_PORT": "8080"})


@pytest.mark.parametrize("service", ["SDZERO", "SDZERO_EDGE", "SDZERO_PREDICTOR_00001_PRIVATE"])
def test_kubernetes_service_links_are_none_of_ours(service: str) -> None:
    # https://kubernetes.io/docs/tutorials/services/connect-applications-service/#environment-variables
    links = {
        "SERVICE_HOST": "10.0.162.149",
        "SERVICE_PORT": "80",
        "SERVICE_PORT_HTTP_METRICS": "80",
        "PORT": "tcp://10.0.162.149:80",
        "PORT_80_TCP": "tcp://10.0.162.149:80",
        "PORT_80_TCP_PROTO": "tcp",
        "PORT_80_TCP_PORT": "80",
        "PORT_80_TCP_ADDR": "10.0.162.149",
    }
    refuse_unknown(KINDS, {f"{service}_{link}": value for link, value in links.items()})


def test_other_peoples_variables_are_left_alone() -> None:
    refuse_unknown(KINDS, {"PATH": "/bin", "SDZEROX": "1", "MAX_ROWS": "1"})


# --- help


def test_the_help_tells_each_default_and_variable() -> None:
    parser = argparse.ArgumentParser(prog="sdzero")
    for kind in KINDS:
        add_arguments(parser, kind)
    text = " ".join(parser.format_help().split())
    assert "--max-rows N images that step together at most" in text
    assert "[default 16; SDZERO_MAX_ROWS]" in text
    assert "--device {auto,cpu,cuda}" in text
    assert "[default true; SDZERO_CUDA_GRAPHS]" in text
    assert "[default none; SDZERO_MODEL]" in text


def test_no_two_processes_share_the_name_of_a_setting() -> None:
    assert not set(EngineSettings.__struct_fields__) & set(ServerSettings.__struct_fields__)
