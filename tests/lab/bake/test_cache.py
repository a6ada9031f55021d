from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from predictor.engine.baked.manifest import Machine
from predictor.engine.folder import ModelFolder
from predictor.lab.bake import build, plan
from predictor.lab.bake.cache import Cache, Record, default_folder, sha256

SHAPES = Path(__file__).parents[3] / "predictor" / "models" / "shapes"
MACHINE = Machine("cuda", "NVIDIA H100 80GB HBM3", "9.0", "2.11.0", "13.0", "g++ 12.2.0", "3.5", ("avx2",), "x86_64")


def made(path: Path, code: bytes = b"code") -> Path:
    """A finished package that has no place yet."""
    (path / "code").mkdir(parents=True)
    (path / "code" / "model.so").write_bytes(code)
    record = Record("model.so", {"model.so": sha256(path / "code" / "model.so")}, {})
    (path / "package.json").write_bytes(msgspec.json.encode(record))
    return path


def test_what_is_kept_is_found(tmp_path: Path):
    cache = Cache(tmp_path)
    assert cache.find("a") is None
    kept = cache.keep("a", made(tmp_path / ".making"))
    found = cache.find("a")
    assert found == kept
    assert (found.code / found.record.library).read_bytes() == b"code"
    assert not (tmp_path / ".making").exists()


def test_of_two_bakes_the_first_keeps_its_package(tmp_path: Path):
    cache = Cache(tmp_path)
    cache.keep("a", made(tmp_path / ".first", b"first"))
    entry = cache.keep("a", made(tmp_path / ".second", b"second"))
    assert (entry.code / "model.so").read_bytes() == b"first"
    assert not (tmp_path / ".second").exists()


@pytest.mark.parametrize("damage", ["code/model.so", "package.json"])
@pytest.mark.parametrize("how", [Path.unlink, lambda path: path.write_bytes(b"{}")], ids=["missing", "other"])
def test_a_damaged_package_is_made_again(tmp_path: Path, damage: str, how: Callable[[Path], object]):
    cache = Cache(tmp_path)
    entry = cache.keep("a", made(tmp_path / ".making"))
    how(entry.path / damage)
    assert cache.find("a") is None
    assert not entry.path.exists()


def keys(machine: Machine = MACHINE, rows: int = 16, autotune: bool = False) -> dict[str, str]:
    return build.keys(plan.jobs(ModelFolder.open(SHAPES), "cuda", [], rows, autotune), machine)


@pytest.mark.parametrize(
    "changed",
    [
        lambda: keys(msgspec.structs.replace(MACHINE, capability="10.0")),
        lambda: keys(msgspec.structs.replace(MACHINE, torch="2.12.0")),
        lambda: keys(msgspec.structs.replace(MACHINE, cpu_flags=("avx2", "fma"))),
        lambda: keys(autotune=True),
    ],
    ids=["capability", "torch", "cpu flags", "autotune"],
)
def test_what_code_depends_on_is_in_every_key(changed: Callable[[], dict[str, str]]):
    assert set(keys().values()) & set(changed().values()) == set()


def test_settings_of_the_compiler_in_the_environment_are_in_the_key(monkeypatch: pytest.MonkeyPatch):
    before = keys()
    monkeypatch.setenv("TORCHINDUCTOR_MAX_AUTOTUNE", "1")
    assert set(before.values()) & set(keys().values()) == set()


def test_gpus_of_one_architecture_share_packages_and_batches_their_other_parts():
    assert keys() == keys(msgspec.structs.replace(MACHINE, gpu="NVIDIA H200"))
    other = keys(rows=8)
    assert [name for name, key in keys().items() if other[name] != key] == ["step-128x128-n"]


def test_the_default_folder_is_the_users_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "sdzero" / "packages"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # to be ignored, says the specification
    assert default_folder() == Path.home() / ".cache" / "sdzero" / "packages"
