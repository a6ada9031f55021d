from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from predictor.lab.shapes.checkpoint import INDEX, Tensors, load_checkpoint, save_checkpoint

CPU = torch.device("cpu")


def parts(value: float) -> dict[str, Tensors]:
    return {"weights": {"a": torch.full((3,), value)}, "moments": {"b": torch.full((2, 2), value).bfloat16()}}


def assert_holds(folder: Path, value: float) -> None:
    saved = load_checkpoint(folder, CPU)
    assert saved is not None
    facts, found = saved
    assert facts == {"steps": value}
    for part, tensors in parts(value).items():
        for name, tensor in tensors.items():
            assert found[part][name].dtype == tensor.dtype
            assert torch.equal(found[part][name], tensor)


def test_no_folder_is_no_checkpoint(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path / "nothing", CPU) is None


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "deep" / "down", {"steps": 1}, parts(1))
    assert_holds(tmp_path / "deep" / "down", 1)


def test_only_the_newest_save_is_kept(tmp_path: Path) -> None:
    for value in (1, 2, 3):
        save_checkpoint(tmp_path, {"steps": value}, parts(value))
    assert_holds(tmp_path, 3)
    assert len(list(tmp_path.iterdir())) == 3


def test_a_part_that_is_gone_leaves_no_file(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, {"steps": 1}, {"other": {"c": torch.zeros(1)}})
    save_checkpoint(tmp_path, {"steps": 2}, parts(2))
    assert_holds(tmp_path, 2)
    assert not list(tmp_path.glob("other*"))


@pytest.mark.parametrize("written", [0, 1])
def test_a_save_that_breaks_off_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    """The disk is full after `written` whole files and a half one."""
    save_checkpoint(tmp_path, {"steps": 1}, parts(1))
    calls: list[Path] = []

    def full_disk(tensors: Tensors, path: Path) -> None:
        save_file(tensors, path)
        calls.append(path)
        if len(calls) > written:
            path.write_bytes(path.read_bytes()[:20])
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("predictor.lab.shapes.checkpoint.save_file", full_disk)
        with pytest.raises(OSError, match="No space left"):
            save_checkpoint(tmp_path, {"steps": 2}, parts(2))
    assert_holds(tmp_path, 1)
    save_checkpoint(tmp_path, {"steps": 3}, parts(3))
    assert_holds(tmp_path, 3)
    assert len(list(tmp_path.iterdir())) == 3


def test_half_an_index_leaves_the_save_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process dies between writing the index and putting it in place."""
    save_checkpoint(tmp_path, {"steps": 1}, parts(1))

    def die(draft: Path, _: Path) -> None:
        draft.write_text(draft.read_text()[:15])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", die)
        with pytest.raises(KeyboardInterrupt):
            save_checkpoint(tmp_path, {"steps": 2}, parts(2))
    assert (tmp_path / f"{INDEX}.new").exists()
    assert_holds(tmp_path, 1)
