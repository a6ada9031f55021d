"""The files of a bundle around its weights: packages, the model's own descriptions, checksums, manifest."""

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from predictor.engine.baked.bundle import seal
from predictor.engine.baked.manifest import File, Manifest, Package, WeightIndex
from predictor.engine.folder import ModelFolder
from predictor.lab.bake.cache import Entry, sha256
from predictor.lab.bake.plan import Job

SEALS = ("manifest.json", "manifest.sha256")
CONTENTS = (*SEALS, "weights.json", "weights.bin", "packages", "model")
DESCRIBED = ("unet", "vae", "text_encoder", "text_encoder_2")


class Occupied(ValueError):
    """The folder to write holds something else; the message says what to do."""


@dataclass(frozen=True)
class Unfinished:
    """A bundle's folder while it is written: no manifest is in it until `finish`."""

    path: Path

    @classmethod
    def begin(cls, path: Path, force: bool) -> "Unfinished":
        """An empty folder; with `force` in the place of another bundle, finished or not. Raises Occupied."""
        there = sorted(child.name for child in path.iterdir()) if path.is_dir() else []
        if path.exists() and not path.is_dir():
            raise Occupied(f"--out: {path} is a file")
        if foreign := [name for name in there if name not in CONTENTS]:
            raise Occupied(f"--out: {path} is not empty and no bundle ({foreign[0]} is in it); give another folder")
        if there and not force:
            what = "holds a bundle" if "manifest.json" in there else "holds an unfinished bundle"
            raise Occupied(f"--out: {path} {what}; --force replaces it")
        for name in CONTENTS:  # the manifest first: what is half removed is no bundle any more
            if (path / name).is_dir():
                shutil.rmtree(path / name)
            else:
                (path / name).unlink(missing_ok=True)
        path.mkdir(parents=True, exist_ok=True)
        return cls(path)

    def add_model(self, folder: ModelFolder) -> None:
        """What tokenizing, scheduling and shapes need of the model's folder; no weights."""
        names = ["model_index.json", "latent_rgb.json", "scheduler/scheduler_config.json"]
        names += [f"{component}/config.json" for component in DESCRIBED]
        for tokenizer in ("tokenizer", "tokenizer_2"):
            names += [f"{tokenizer}/{file.name}" for file in sorted((folder.path / tokenizer).glob("*"))]
        for name in names:
            if (folder.path / name).is_file():
                (self.path / "model" / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(folder.path / name, self.path / "model" / name)

    def add_packages(
        self, jobs: Sequence[Job], entries: Mapping[str, Entry], constants: Mapping[str, dict[str, str]]
    ) -> list[Package]:
        """Copy the compiled code; what the manifest says of it."""
        packages = []
        for job in jobs:
            entry = entries[job.name]
            folder = self.path / "packages" / job.name
            folder.mkdir(parents=True)
            for name in entry.record.files:
                shutil.copyfile(entry.code / name, folder / name)
            packages.append(
                Package(
                    name=job.name,
                    kind=job.kind,
                    library=f"packages/{job.name}/{entry.record.library}",
                    height=job.height,
                    width=job.width,
                    images=job.images,
                    evaluations=job.evaluations,
                    constants=constants[job.name],
                )
            )
        return packages

    def add_index(self, index: WeightIndex) -> None:
        """weights.json."""
        (self.path / "weights.json").write_bytes(msgspec.json.encode(index))

    def files(self) -> dict[str, File]:
        """Sizes and checksums of all files so far but weights.bin, whose checksums are in weights.json."""
        found = (file for file in sorted(self.path.rglob("*")) if file.is_file() and file.name != "weights.bin")
        return {str(file.relative_to(self.path)): File(size=file.stat().st_size, sha256=sha256(file)) for file in found}

    def finish(self, manifest: Manifest) -> None:
        """Make it a bundle, at once: the manifest appears whole, and last."""
        with tempfile.TemporaryDirectory(prefix=".sealing-", dir=self.path) as scratch:
            seal(Path(scratch), manifest)
            for name in reversed(SEALS):
                (Path(scratch) / name).replace(self.path / name)
