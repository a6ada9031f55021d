"""A weight file is read whole and right, or refused with its name and the reason."""

import contextlib
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from predictor.engine import weights
from predictor.engine.weights import WeightError, WeightReader, read_header


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    rng = np.random.default_rng(0)
    save_file({"a": rng.standard_normal((3, 5)).astype(np.float32), "b": np.arange(7, dtype=np.float16)}, path)
    return path


def test_threads_read_what_safetensors_wrote(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "CHUNK", 16)
    reader = WeightReader([file], threads=3)
    buffer, entries = reader.wait(file)
    assert bytes(buffer) == file.read_bytes()
    got = np.frombuffer(buffer[entries["b"].start : entries["b"].end], np.float16)
    assert got.tolist() == list(range(7))
    assert entries["a"].shape == (3, 5)
    assert reader.finished is not None


@pytest.mark.parametrize("keep", [0, 4, 8, 20, -1])
def test_a_truncated_file_is_refused_by_name(file: Path, keep: int) -> None:
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(WeightError, match=r"model\.safetensors: .*(cut short|not JSON)"):
        read_header(file)


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(WeightError, match=r"absent\.safetensors: No such file"):
        read_header(tmp_path / "absent.safetensors")


def test_bytes_behind_the_last_tensor_are_refused(file: Path) -> None:
    file.write_bytes(file.read_bytes() + b"extra")
    with pytest.raises(WeightError, match="something was added"):
        read_header(file)


@pytest.mark.parametrize(
    "header",
    [
        {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}},
        {"a": {"dtype": "F99", "shape": [1], "data_offsets": [0, 4]}},
        {"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}},
        {"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}},
        {"a": [1, 2]},
        ["a"],
        {"a": {"dtype": "F32", "shape": "1", "data_offsets": [0, 4]}},
    ],
)
def test_an_inconsistent_header_is_refused(tmp_path: Path, header: object) -> None:
    path = tmp_path / "model.safetensors"
    head = json.dumps(header).encode()
    path.write_bytes(len(head).to_bytes(8, "little") + head + bytes(8))
    with pytest.raises(WeightError, match=r"model\.safetensors: "):
        read_header(path)


@given(st.binary(max_size=200), st.integers(0, 2**64 - 1))
@settings(max_examples=200)
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, body: bytes, length: int) -> None:
    path = tmp_path_factory.mktemp("any") / "model.safetensors"
    path.write_bytes(length.to_bytes(8, "little") + body)
    with contextlib.suppress(WeightError):
        assert isinstance(read_header(path), dict)


def test_a_file_that_vanishes_while_it_is_read_is_an_error(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_open(*_: object) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(weights.os, "open", no_open)
    with pytest.raises(WeightError, match=r"model\.safetensors: Input/output error"):
        WeightReader([file]).wait(file)
