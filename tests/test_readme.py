"""Every code block that a reader may copy from README.md or docs/ works."""

import json
import os
import re
import shlex
import subprocess
import sys
from argparse import ArgumentParser
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from predictor import cli
from predictor.edge.settings import EdgeSettings
from predictor.settings import EngineSettings, ServerSettings

ROOT = Path(__file__).parents[1]
FENCE = re.compile(
    r"(?:^<!-- run: (?P<rule>[^>]+?) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
EDGE, PREDICTOR = "localhost:8080", "localhost:8081"  # where the pages' processes listen, as `make serve` has it


SERVERS = {"serve-predictor": [EngineSettings, ServerSettings], "serve-edge": [EdgeSettings]}


class Understood(Exception):
    """A tool's command line was taken."""


@dataclass(frozen=True)
class Block:
    """A fenced block with its language and the rule of the comment before it; no rule is an empty one."""

    page: str
    number: int
    rule: str
    language: str
    text: str

    @property
    def kind(self) -> str:
        """What is done with the block; raises for one that nothing is done with."""
        if self.rule in ("parse", "against the edge", "against the predictor"):
            return self.rule
        if not self.rule and self.language == "text":
            return "text"
        if not self.rule and self.language == "sh" and self.text.startswith("make "):
            return "make"
        if not self.rule and not self.language and "──" in self.text:
            return "drawing"
        if not self.rule and self.language == "json":
            return "json"
        raise ValueError(f"{self.page}: block {self.number}: no rule for {self.language!r} with rule {self.rule!r}")


def blocks() -> list[Block]:
    return [
        Block(str(page.relative_to(ROOT)), number, found["rule"] or "", found["language"], found["text"])
        for page in PAGES
        for number, found in enumerate(FENCE.finditer(page.read_text(encoding="utf-8")), start=1)
    ]


def of_kind(kind: str) -> list[object]:
    """The blocks of one kind, as parameters of a test."""
    found = [block for block in blocks() if block.kind == kind]
    return [pytest.param(block, id=f"{block.page}-{block.number}") for block in found]


def lines(block: Block) -> list[list[str]]:
    """The commands of a block, split as a shell would."""
    return [shlex.split(line) for line in block.text.replace("\\\n", " ").splitlines() if line.strip()]


def test_every_block_is_found_and_has_a_rule():
    fences = sum(line.startswith("```") for page in PAGES for line in page.read_text(encoding="utf-8").splitlines())
    assert [block.kind for block in blocks()].count("against the edge") >= 3
    assert fences == 2 * len(blocks())


@pytest.mark.parametrize("block", of_kind("json"))
def test_json_is_json(block):
    json.loads(block.text)


@pytest.mark.parametrize("block", of_kind("make"))
def test_make_knows_the_target(block):
    for program, *targets in lines(block):
        assert (program, len(targets)) == ("make", 1)
        run = subprocess.run(["make", "-n", *targets], cwd=ROOT, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
        listed = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        assert re.search(rf"^  {targets[0]} +\S", listed, re.MULTILINE)


def test_make_targets_in_the_text_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for page in PAGES:
        for target in re.findall(r"`make ([\w-]+)`", page.read_text(encoding="utf-8")):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"{page.name}: make {target}"


@pytest.mark.parametrize("block", of_kind("parse"))
def test_the_command_line_is_understood(block, monkeypatch):
    """Servers get as far as their settings, tools as far as their arguments."""
    served = []
    for room in ("server", "edge"):
        monkeypatch.setattr(f"predictor.{room}.app.main", lambda *settings: served.append(settings) or 0)
    parse = ArgumentParser.parse_args

    def understand(parser, *given, **more):
        parsed = parse(parser, *given, **more)
        if parser.prog not in ("sdzero", "sdzero serve-predictor", "sdzero serve-edge"):
            raise Understood
        return parsed

    monkeypatch.setattr(ArgumentParser, "parse_args", understand)
    for name in [name for name in os.environ if name.startswith("SDZERO_")]:
        monkeypatch.delenv(name)
    for program, command, *arguments in lines(block):
        assert program == "sdzero"
        if command in SERVERS:
            assert cli.main([command, *arguments]) == 0
            assert [type(settings) for settings in served.pop()] == SERVERS[command]
        else:
            with pytest.raises(Understood):
                cli.main([command, *arguments])


def output(block: Block, local: str, port: int, **environment: str) -> str:
    """What the block prints when `local` is another port of this machine."""
    assert local in block.text
    text = block.text.replace(local, f"127.0.0.1:{port}")
    if block.language == "python":
        command = [sys.executable, "-c", text]
    else:
        # The command of this checkout, whether or not its script is on the PATH.
        own = f'sdzero() {{ {shlex.quote(sys.executable)} -m predictor.cli "$@"; }}'
        command = ["bash", "-c", f"set -euo pipefail\n{own}\n{text}"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, env=os.environ | environment)
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.mark.parametrize("block", of_kind("against the edge"))
def test_a_block_for_clients_does_what_the_page_says(block, edge, key):
    printed = output(block, EDGE, edge.http_port, SDZERO_API_KEY=key)
    if "OpenAI" in block.text:
        assert printed == "b'\\x89PNG' 7\n"
    elif block.language == "python":
        assert printed == "(1, 128, 128, 3)\n"
    else:
        assert json.loads(printed)["object"] == "job"


@pytest.mark.parametrize("block", of_kind("against the predictor"))
def test_a_block_for_operators_does_what_the_page_says(block, predictor):
    predictor.picture("a red circle", steps=1)
    assert "server first_image" in output(block, PREDICTOR, predictor.http_port)


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "CHANGELOG.md", *PAGES[1:]], ids=lambda page: page.name)
def test_links_to_files_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        assert target.startswith("https://") or (page.parent / target).exists(), target


def test_the_inputs_in_the_table_are_the_models_inputs(predictor):
    section = PAGES[0].read_text(encoding="utf-8").partition("| input |")[2].partition("\n\n")[0]
    named = {name for row in section.splitlines()[2:] for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    assert named == {tensor["name"] for tensor in httpx.get(predictor.model_url).json()["inputs"]}
