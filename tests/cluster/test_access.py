import base64
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import yaml

from predictor.cluster.access import NoAccess, found, of_kubeconfig, of_this_pod
from predictor.cluster.api import Api
from tests.cluster.api_server import api_server, listing


@pytest.fixture
def account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    import certifi

    (tmp_path / "token").write_text("first\n")
    (tmp_path / "namespace").write_text("shop")
    (tmp_path / "ca.crt").write_bytes(Path(certifi.where()).read_bytes())
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "6443")
    return tmp_path


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


def kubeconfig(folder: Path, url: str, user: dict[str, object], **context: str) -> str:
    path = folder / "config"
    told = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "clusters": [{"name": "c", "cluster": {"server": url}}],
        "users": [{"name": "u", "user": user}],
        "contexts": [
            {"name": "here", "context": {"cluster": "c", "user": "u", **context}},
            {"name": "there", "context": {"cluster": "c", "user": "u", "namespace": "elsewhere"}},
        ],
    }
    path.write_text(yaml.safe_dump(told))
    return str(path)


def test_a_pod_uses_its_own_account_and_a_new_token_as_soon_as_it_is_there(account):
    access = of_this_pod(account)
    assert (access.url, access.namespace) == ("https://10.0.0.1:6443", "shop")
    assert access.authorization() == "Bearer first"
    (account / "token").write_text("second")
    assert access.authorization() == "Bearer second"


def test_an_address_of_version_6(account, monkeypatch):
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    assert httpx.URL(of_this_pod(account).url).host == "fd00::1"


def test_an_account_that_is_not_mounted(account):
    (account / "token").unlink()
    with pytest.raises(NoAccess, match="automountServiceAccountToken"):
        of_this_pod(account)


@pytest.mark.usefixtures("nowhere")
def test_no_cluster_at_all(tmp_path):
    with pytest.raises(NoAccess, match="KUBERNETES_SERVICE_HOST: missing"):
        of_this_pod(tmp_path)
    with pytest.raises(NoAccess, match="allowed: --kubeconfig"):
        found(None, None)


async def test_a_kubeconfig_with_a_token(tmp_path, monkeypatch):
    async with api_server(lambda asked: listing("1")) as server:
        path = kubeconfig(tmp_path, server.url, {"token": "of-a-user"}, namespace="shop")
        monkeypatch.setenv("KUBECONFIG", path)
        access = found(None, None)
        assert access.namespace == "shop"
        async with Api(access) as api:
            assert (await api.list("/api/v1/pods", {})).metadata.resource_version == "1"
        assert server.asked[0].headers["authorization"] == "Bearer of-a-user"
    assert of_kubeconfig(path, "there").namespace == "elsewhere"


def test_a_kubeconfig_whose_token_a_program_gives(tmp_path):
    program = tmp_path / "login"
    credential = (
        '{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {"token": "drawn"}}'
    )
    program.write_text(f"#!/bin/sh\necho '{credential}'\n")
    program.chmod(0o755)
    user = {
        "exec": {
            "apiVersion": "client.authentication.k8s.io/v1",
            "command": str(program),
            "interactiveMode": "Never",
        }
    }
    access = of_kubeconfig(kubeconfig(tmp_path, "https://127.0.0.1:1", user), None)
    assert access.authorization() == "Bearer drawn"
    assert access.namespace == "default"


def test_a_kubeconfig_that_names_no_such_context(tmp_path):
    path = kubeconfig(tmp_path, "https://127.0.0.1:1", {"token": "x"})
    with pytest.raises(NoAccess, match="nowhere"):
        of_kubeconfig(path, "nowhere")
    with pytest.raises(NoAccess, match=r"No configuration found"):
        of_kubeconfig(str(tmp_path / "missing"), None)


def test_a_certificate_that_is_none_is_an_error_in_words(tmp_path):
    nonsense = base64.b64encode(b"nonsense").decode()
    user = {"client-certificate-data": nonsense, "client-key-data": nonsense}
    with pytest.raises(NoAccess, match="certificate"):
        of_kubeconfig(kubeconfig(tmp_path, "https://127.0.0.1:1", user), None)


def test_watching_from_a_pod_needs_no_kubernetes_package():
    program = (
        "import sys; from predictor.cluster import cli, watching; "
        "print(sorted({name.split('.')[0] for name in sys.modules} & {'kubernetes', 'yaml', 'torch', 'kserve'}))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
