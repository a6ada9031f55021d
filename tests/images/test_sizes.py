"""What an image weighs, of a layout that is written here."""

import gzip
import hashlib
import json
from pathlib import Path

from predictor.lab.images.sizes import main


def blob(layout: Path, content: bytes) -> dict[str, object]:
    """Keep a blob; its descriptor."""
    digest = hashlib.sha256(content).hexdigest()
    (layout / "blobs" / "sha256").mkdir(parents=True, exist_ok=True)
    (layout / "blobs" / "sha256" / digest).write_bytes(content)
    return {"digest": f"sha256:{digest}", "size": len(content)}


def test_each_layer_and_their_sum(tmp_path, capsys):
    layers = [blob(tmp_path, gzip.compress(bytes(size))) for size in (3_000_000, 40_500_000)]
    history = [
        {"created_by": "debian"},
        {"created_by": "/bin/sh -c #(nop) ENV A=1", "empty_layer": True},
        {"created_by": "/bin/sh -c #(nop) COPY dir:abc   in /opt"},
    ]
    config = blob(tmp_path, json.dumps({"history": history}).encode())
    manifest = blob(tmp_path, json.dumps({"config": config, "layers": layers}).encode())
    (tmp_path / "index.json").write_text(json.dumps({"manifests": [manifest]}))
    assert main([str(tmp_path)]) == 0
    table = [line.split(maxsplit=2) for line in capsys.readouterr().out.splitlines()]
    assert [(row[0], row[2]) for row in table] == [
        ("3.0", "debian"),
        ("40.5", "COPY dir:abc in /opt"),
        ("43.5", "in all"),
    ]
    assert [row[1] for row in table] == [
        f"{size / 1e6:.1f}" for size in (layers[0]["size"], layers[1]["size"], layers[0]["size"] + layers[1]["size"])
    ]
