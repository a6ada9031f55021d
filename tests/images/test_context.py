"""What a build is given of this folder: the sources, and nothing that lies beside them."""

import fnmatch
import subprocess
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).parents[2]
PATTERNS = [
    line
    for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("#")
]
SOURCES = {"LICENSE", "README.md", "constraints.txt", "predictor", "pyproject.toml"}
OWN = {"bundles", "models"}  # for a user's own, which are not ours to have


def is_given(path: str) -> bool:
    """Whether a file is in the context: the last pattern that matches it or a folder above it decides.

    Source: docs.docker.com, "Build context", .dockerignore files. `**/` stands for any number of folders.
    """
    pure = PurePosixPath(path)
    places = [str(pure), *(str(parent) for parent in pure.parents if str(parent) != ".")]
    given = True
    for pattern in PATTERNS:
        wanted = pattern.removeprefix("!")
        subjects = [PurePosixPath(place).name for place in places] if wanted.startswith("**/") else places
        if any(fnmatch.fnmatchcase(subject, wanted.removeprefix("**/")) for subject in subjects):
            given = pattern.startswith("!")
    return given


def git(*arguments: str) -> set[str]:
    listed = subprocess.run(["git", "ls-files", "-z", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    return {name for name in listed.stdout.split("\0") if name}


def test_everything_is_left_out_but_a_few_names():
    assert PATTERNS[0] == "*"
    assert {pattern[1:] for pattern in PATTERNS if pattern.startswith("!")} == SOURCES | OWN


def test_nothing_that_git_ignores_is_given():
    assert {name for name in git("--others", "--ignored", "--exclude-standard") if is_given(name)} == set()


def test_private_things_are_not_given():
    private = [".env", ".git/config", "predictor/.env", "predictor/edge/.secrets/key", "out/demo/data/secret", "id_rsa"]
    private += ["predictor/__pycache__/cli.cpython-312.pyc", "predictor/core/x.pyc", "data/secret", "values.yaml"]
    assert [name for name in private if is_given(name)] == []


def test_every_source_is_given():
    kept = {name for name in git() if name.split("/")[0] in SOURCES}
    assert {name for name in kept if not is_given(name)} == set()
    assert is_given("models/sd15/unet/config.json")
