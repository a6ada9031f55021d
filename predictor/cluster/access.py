"""Where the API server is, and who asks: this pod's own account, or a kubeconfig.

The edge watches with httpx, which it has anyway. The `kubernetes` package (37.0, measured beside httpx) takes 0.7 s and
49 MB more once its first API is used, 700 modules, and 95 MB of an image that may have 200; all that for two lists, two
watches and models that nobody needs, since `objects.py` has the few fields. What it does better than anybody is to
read a kubeconfig, with cloud providers' plugins and expiring tokens, and for that alone `sdzero watch` imports it.
"""

import os
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from predictor.lazily import stand_ins

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class NoAccess(Exception):
    """Nobody has told where the API server is, or with what right to ask it."""


@dataclass(frozen=True)
class Access:
    """An API server and a way to be known to it.

    Attributes:
        url: `https://HOST:PORT`.
        verify: whom to trust, with this client's certificate where it has one; True is for plain http in tests.
        authorization: the header's present value, or None; asked before each request, for tokens expire.
        namespace: where to look when nobody says it.
        proxy: address of a proxy that the kubeconfig names.
        server_name: the name in the server's certificate, where it is not the one in `url`.
    """

    url: str
    verify: ssl.SSLContext | bool
    authorization: Callable[[], str | None]
    namespace: str = "default"
    proxy: str | None = None
    server_name: str | None = None


def of_this_pod(account: Path = ACCOUNT) -> Access:
    """The account that Kubernetes has mounted into this pod.

    Raises:
        NoAccess: this is no pod, or its account's token is not mounted.
    """
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST", ""), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    if not host:
        raise NoAccess("KUBERNETES_SERVICE_HOST: missing; this process does not run in a pod")
    token = account / "token"
    try:
        token.read_bytes()
        context = ssl.create_default_context(cafile=str(account / "ca.crt"))
        namespace = (account / "namespace").read_text().strip()
    except OSError as error:
        raise NoAccess(f"the pod's account is not mounted (automountServiceAccountToken): {error}") from None
    address = f"[{host}]" if ":" in host else host
    # The kubelet writes a new token into the file long before the old one ends.
    return Access(f"https://{address}:{port}", context, lambda: f"Bearer {token.read_text().strip()}", namespace)


def of_kubeconfig(path: str | None, context: str | None) -> Access:
    """What kubectl would use; `path` None stands for `KUBECONFIG` or `~/.kube/config`.

    Raises:
        NoAccess: there is none, it cannot be used, or the package that reads it is missing.
    """
    try:
        # Where its validator is installed, it is imported as well, and takes six times as long as all the rest.
        with stand_ins({"kubernetes_validate": None}):
            from kubernetes.client import Configuration
            from kubernetes.config import ConfigException, list_kube_config_contexts, load_kube_config
    except ImportError:
        raise NoAccess("a kubeconfig needs the extra `watch`: pip install 'sdzero[watch]'") from None
    path = path or os.environ.get("KUBECONFIG") or "~/.kube/config"
    configuration = Configuration()
    try:
        contexts, current = list_kube_config_contexts(path)
        load_kube_config(path, context, configuration, persist_config=False)
    except (ConfigException, OSError) as error:
        raise NoAccess(str(error)) from None
    chosen = next((one for one in contexts if one["name"] == context), current)
    try:
        verify = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
        if configuration.cert_file:
            verify.load_cert_chain(configuration.cert_file, configuration.key_file)
    except OSError as error:
        raise NoAccess(f"{path}: a certificate or key cannot be read: {error}") from None
    if not configuration.verify_ssl:
        verify.check_hostname, verify.verify_mode = False, ssl.CERT_NONE
    return Access(
        url=configuration.host.rstrip("/"),
        verify=verify,
        authorization=lambda: configuration.auth_settings().get("BearerToken", {}).get("value"),
        namespace=chosen["context"].get("namespace", "default"),
        proxy=configuration.proxy,
        server_name=configuration.tls_server_name,
    )


def found(path: str | None, context: str | None) -> Access:
    """A kubeconfig if one is named or there, else this pod's account.

    Raises:
        NoAccess: neither can be used.
    """
    if path or context or os.environ.get("KUBECONFIG") or Path("~/.kube/config").expanduser().exists():
        return of_kubeconfig(path, context)
    if os.environ.get("KUBERNETES_SERVICE_HOST"):
        return of_this_pod()
    raise NoAccess("no cluster: allowed: --kubeconfig, the variable KUBECONFIG, ~/.kube/config, or a pod's own account")
