"""What holds for the repository as a whole and that no tool checks."""

import re
import subprocess
import sys
import tomllib
from importlib.metadata import entry_points
from pathlib import Path

import msgspec
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from predictor import __version__, cli
from predictor.settings import EngineSettings, ServerSettings

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = {name: [Requirement(line) for line in lines] for name, lines in PROJECT["optional-dependencies"].items()}
BASE = [Requirement(line) for line in PROJECT["dependencies"]]
MODEL = {"torch", "diffusers", "transformers", "tokenizers", "safetensors"}
SERVER = {"kserve", "fastapi", "starlette", "uvicorn", "grpcio", "prometheus-client", "structlog"}
ADDRESS = re.compile(r"https?://[^\s\"')]*(?:pypi|/simple\b|artifactory|devpi|nexus)")
MACHINE_PATH = re.compile(r"(?<![\w.~-])/(?:root|home|Users|work|workspace)/\w")


def tracked() -> list[Path]:
    """Files of the repository, without those that are about to be deleted."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [path for name in listed.split("\0") if name and (path := ROOT / name).is_file()]


def texts() -> list[tuple[str, str]]:
    """Tracked text files: name and content."""
    found = []
    for path in tracked():
        content = path.read_bytes()
        if b"\0" not in content:
            found.append((str(path.relative_to(ROOT)), content.decode()))
    return found


def names(requirements: list[Requirement]) -> set[str]:
    return {canonicalize_name(requirement.name) for requirement in requirements}


def fresh(program: str) -> set[str]:
    """The modules of a fresh interpreter that has run `program`."""
    program += "\nimport sys; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(run.stdout.split())


def test_no_file_is_too_long_to_read():
    long = {name: text.count("\n") for name, text in texts() if name.endswith(".py") and text.count("\n") > 400}
    assert long == {}


@pytest.mark.parametrize("forbidden", [ADDRESS, MACHINE_PATH], ids=["package index", "path of one machine"])
def test_nothing_is_bound_to_where_it_was_written(forbidden):
    found = [(name, match[0]) for name, text in texts() for match in forbidden.finditer(text)]
    assert found == []


def test_every_direct_dependency_is_pinned_and_nothing_says_from_where():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line) for line in lines if not line.startswith("#")]
    direct = BASE + [requirement for extra in EXTRAS.values() for requirement in extra]
    assert names(direct) - names(pins) == set()
    assert [line for line in lines if "://" in line or line.startswith("-")] == []
    for pin in pins:
        assert pin.url is None
        (only,) = pin.specifier
        assert only.operator == "=="
        for requirement in direct:
            if canonicalize_name(requirement.name) == canonicalize_name(pin.name):
                assert requirement.specifier.contains(only.version), f"{pin} is not {requirement}"


def test_each_process_installs_only_what_it_imports():
    assert names(BASE) & (MODEL | SERVER | {"sqlalchemy", "pyzmq"}) == set()
    assert names(EXTRAS["server"]) & (MODEL | {"sqlalchemy"}) == set()
    assert names(EXTRAS["engine"]) & (SERVER | {"sqlalchemy", "pillow"}) == set()


def test_the_changelog_knows_the_version():
    headings = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert {__version__, "Unreleased"} & set(headings)


def test_the_installed_script_is_the_command_line():
    (script,) = entry_points(group="console_scripts", name="sdzero")
    assert script.load() is cli.main


@pytest.mark.parametrize("module", ["predictor.cli", "predictor.server.process", "predictor.server.app"])
def test_what_runs_before_the_engine_is_started_imports_nothing_slow(module):
    slow = {"numpy", "torch", "diffusers", "kserve", "fastapi", "pydantic", "asyncio", "zmq", "httpx", "PIL"}
    assert fresh(f"import {module}") & slow == set()


def test_the_engine_reads_the_folder_before_torch():
    loaded = fresh("import predictor.engine.loop")
    assert loaded & {"torch", "diffusers", "transformers", "kserve", "fastapi"} == set()


def test_help_lists_every_setting(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["serve-predictor", "--help"])
    assert ended.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    for kind in (EngineSettings, ServerSettings):
        for field in msgspec.structs.fields(kind):
            assert f"--{field.name.replace('_', '-')} " in shown
            assert f"SDZERO_{field.name.upper()}]" in shown.replace("- ", "-")


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_has_a_line_of_help(command, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["--help"])
    assert ended.value.code == 0
    assert f"  {command} " in capsys.readouterr().out


def test_the_architecture_page_names_files_that_exist():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([\w/]+\.py)`", text)) | set(re.findall(r"\b(predictor/\w+(?:\.py)?)\b", text))
    files = [str(path.relative_to(ROOT)) for path in tracked()]
    assert len(named) > 20
    for name in named:
        whole = name if name.startswith("predictor/") else f"predictor/{name}"
        # A bare name stands in a paragraph about its room.
        found = [
            f for f in files if f == whole or f.startswith(f"{whole}/") or ("/" not in name and f.endswith(f"/{name}"))
        ]
        assert found, f"docs/architecture.md: {name}"


def test_the_architecture_page_names_every_room():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rooms = {path.relative_to(ROOT).parts[1] for path in (ROOT / "predictor").glob("*/__init__.py")}
    assert {room for room in rooms if f"**{room}**" not in text} == set()
