"""The Dockerfile as it is read: what a linter says of it, and the promises that no build checks."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "Dockerfile").read_text(encoding="utf-8")
TARGETS = ("edge", "predictor", "predictor-eager")
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]


def stages() -> dict[str, list[str]]:
    """Each stage's instructions, the first of which says what it starts from."""
    lines = re.sub(r"\\\n", " ", re.sub(r"(?m)^#.*\n", "", TEXT)).splitlines()
    found: dict[str, list[str]] = {"": []}
    for line in filter(None, map(str.strip, lines)):
        if opening := re.fullmatch(r"FROM (\S+) AS (\S+)", line):
            found[opening[2]] = stage = [opening[1]]
        else:
            assert not line.startswith("FROM"), line
            (stage if len(found) > 1 else found[""]).append(line)
    return found


STAGES = stages()


def test_a_linter_has_nothing_to_say():
    run = subprocess.run(
        [Path(sys.executable).with_name("hadolint"), ROOT / "Dockerfile"], capture_output=True, text=True, check=False
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


def test_every_stage_starts_from_the_given_base_or_from_another_stage():
    assert "ARG BASE=python:3.12-slim-bookworm" in STAGES[""]
    known = {"${BASE}"}
    for name, instructions in list(STAGES.items())[1:]:
        assert instructions[0] in known, name
        known.add(name)


def test_nothing_is_fetched_from_an_address():
    assert "://" not in TEXT
    assert not re.search(r"(?m)^ADD|--index-url|--extra-index|--find-links", TEXT)


@pytest.mark.parametrize("target", TARGETS)
def test_an_image_runs_as_nobody_in_particular_and_begins_with_the_command(target):
    instructions = STAGES[target]
    assert instructions[0] == "runtime"
    assert "USER 65532:65532" in instructions
    assert 'ENTRYPOINT ["sdzero"]' in instructions
    assert f'CMD ["{"serve-edge" if target == "edge" else "serve-predictor"}"]' in instructions


@pytest.mark.parametrize("target", TARGETS)
def test_an_image_installs_nothing_itself_and_has_our_code_on_top(target):
    instructions = STAGES["runtime"] + STAGES[target]
    assert not [line for line in instructions if re.search(r"\b(pip|uv|apt-get)\b", line)]
    copied = [line for line in STAGES[target] if line.startswith("COPY")]
    assert copied[-1] == "COPY --from=code /layers/code/ /"
    # What the build is told of itself is different each time, and comes after everything that could be reused.
    assert not [line for line in STAGES[target][: STAGES[target].index(copied[-1])] if line.startswith("ARG VERSION")]


@pytest.mark.parametrize("target", TARGETS)
def test_an_image_says_what_it_is(target):
    (label,) = [line for line in STAGES[target] if line.startswith("LABEL")]
    names = re.findall(r"org\.opencontainers\.image\.(\w+)=", label)
    assert sorted(names) == ["description", "licenses", "revision", "source", "title", "version"]


def test_everything_installed_is_pinned_and_belongs_to_an_extra():
    (resolving,) = [line for line in STAGES["requirements"] if line.startswith("RUN pin()")]
    assert "--constraint constraints.txt" in resolving
    (edge,) = [line for line in STAGES["requirements"] if line.startswith("ARG EDGE_EXTRAS")]
    named = {*re.findall(r"--extra ([a-z]+)", resolving), *edge.split('"')[1].split()}
    assert named == {"edge", "server", "engine", "telemetry"} <= EXTRAS.keys()
    pinned = re.findall(r"-o (\S+\.txt)", resolving)
    installs = [line for name in STAGES for line in STAGES[name] if re.search(r"pip install", line)]
    installed = [line for line in installs if "--constraint constraints.txt" not in line]
    # What was resolved with the constraints is installed as it is; our own code brings nothing.
    assert all("--no-deps" in line for line in installed)
    assert sorted(name for line in installed for name in re.findall(r"-r (\S+\.txt) ", line)[:1]) == sorted(pinned)


def test_every_file_that_is_copied_from_here_exists():
    for line in [line for name in STAGES for line in STAGES[name] if line.startswith("COPY") and "--from" not in line]:
        *sources, _ = line.removeprefix("COPY ").split()
        for source in sources:
            assert source.startswith("${") or (ROOT / source).exists(), line
