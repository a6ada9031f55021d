import json
from pathlib import Path

import pytest

from predictor.lab.bench.bundle import describe


def test_a_bundle_is_described_by_its_files_and_its_manifest(tmp_path: Path) -> None:
    (tmp_path / "bundle" / "step").mkdir(parents=True)
    (tmp_path / "bundle" / "weights.bin").write_bytes(bytes(1000))
    (tmp_path / "bundle" / "step" / "package.so").write_bytes(bytes(500))
    before = describe(tmp_path / "bundle")
    assert (before.name, before.bytes, before.bake_seconds) == ("bundle", 1500, None)
    text = json.dumps({"version": 1, "bake_seconds": 212.5})
    (tmp_path / "bundle" / "manifest.json").write_text(text)
    after = describe(tmp_path / "bundle")
    assert (after.bytes, after.bake_seconds) == (1500 + len(text), 212.5)


def test_a_manifest_that_cannot_be_read_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"bake_seconds": "long"}')
    with pytest.raises(ValueError, match=r"manifest.json: Expected `float \| null`, got `str` - at `\$.bake_seconds`"):
        describe(tmp_path)
