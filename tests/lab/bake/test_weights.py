import hashlib
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from predictor.engine.baked.manifest import ALIGNMENT, TensorSpec
from predictor.lab.bake.cache import Constant
from predictor.lab.bake.weights import WeightFile, arranged

sizes = st.lists(st.integers(1, 5), min_size=0, max_size=4)
dtypes = st.sampled_from([torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool])


def read(path: Path, spec: TensorSpec) -> torch.Tensor:
    dtype = getattr(torch, spec.dtype)
    count = torch.Size(spec.shape).numel()
    data = bytearray(path.read_bytes()[spec.offset : spec.offset + count * dtype.itemsize])
    return torch.frombuffer(data, dtype=dtype).as_strided(spec.shape, spec.strides)


@st.composite
def tensors(draw: st.DrawFn) -> torch.Tensor:
    """Any tensor without gaps, its sides in memory in any order."""
    shape, seed = draw(sizes), draw(st.integers(0, 3))
    order = draw(st.permutations(range(len(shape))))
    values = torch.randint(0, 2, [shape[side] for side in order], generator=torch.Generator().manual_seed(seed))
    return values.to(draw(dtypes)).permute([order.index(side) for side in range(len(shape))])


@given(st.lists(tensors(), min_size=1, max_size=6))
def test_tensors_come_back_as_they_were(tmp_path_factory: pytest.TempPathFactory, given: list[torch.Tensor]):
    path = tmp_path_factory.mktemp("weights") / "weights.bin"
    with WeightFile(path) as file:
        names = [file.add("same", tensor) for tensor in given]
    index = file.index()
    assert path.stat().st_size == index.size
    for name, tensor in zip(names, given, strict=True):
        spec = index.tensors[name]
        assert spec.offset % ALIGNMENT == 0
        assert spec.strides == tensor.stride()
        assert torch.equal(read(path, spec), tensor)
        assert getattr(torch, spec.dtype) == tensor.dtype


def test_equal_tensors_are_written_once_and_others_of_one_name_apart(tmp_path: Path):
    ones, twos = torch.ones(2, 3), 2 * torch.ones(2, 3)
    with WeightFile(tmp_path / "weights.bin") as file:
        assert file.add("a", ones) == "a"
        assert file.add("b", ones.clone()) == "a"
        other = file.add("a", twos)
        assert other != "a"
        assert file.add("a", twos.clone()) == other
        # The same bytes in another layout or dtype are another tensor.
        assert file.add("c", torch.ones(3, 2).T) == "c"
        assert file.add("d", ones.view(torch.int32)) == "d"
    assert set(file.index().tensors) == {"a", other, "c", "d"}


def test_every_chunk_has_its_checksum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("predictor.lab.bake.weights.CHUNK", 4096)
    with WeightFile(tmp_path / "weights.bin") as file:
        file.add("a", torch.arange(1000))
        file.add("b", torch.arange(2001, dtype=torch.float32))
    index, data = file.index(), (tmp_path / "weights.bin").read_bytes()
    chunks = [data[at : at + 4096] for at in range(0, len(data), 4096)]
    assert index.chunk == 4096
    assert index.sha256 == [hashlib.sha256(chunk).hexdigest() for chunk in chunks]
    assert len(chunks[-1]) < 4096


def test_a_weight_is_brought_into_the_packages_dtype_and_layout():
    source = torch.arange(24, dtype=torch.float32).reshape(2, 3, 2, 2)
    made = arranged(source, Constant("float16", (2, 3, 2, 2), (12, 1, 6, 3)))
    assert made.dtype == torch.float16
    assert made.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(made.float(), source)


def test_a_weight_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"got shape \[3, 2\]; the package expects \[2, 3\]"):
        arranged(torch.zeros(3, 2), Constant("float32", (2, 3), (3, 1)))
