"""An S3-compatible server of the tests' own."""

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import structlog

from tests.parts.part import Missing, program
from tests.processes import free_port, wait_until

HOW = "GOBIN=~/.cache/sdzero-tests/bin go install github.com/versity/versitygw/cmd/versitygw@latest, where Go is"
PLACES = [str(Path.home() / place) for place in (".cache/sdzero-tests/bin", "go/bin")]
KEY, SECRET, REGION = "tests", "the-tests-own-secret", "us-east-1"
log = structlog.get_logger("sdzero.tests")


class S3:
    """A server on a free port, which it keeps: versitygw, or else moto from a Python package.

    Both serve buckets that outlive the process. `verifies` tells whether signatures and their expiry are checked,
    which moto does not.

    Raises:
        Missing: neither is installed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._endpoint = f"http://127.0.0.1:{self._port}"
        self._requests = folder / "requests"  # that moto recorded
        self.data = folder / "buckets"
        self.data.mkdir()
        self.environment = {
            "AWS_ENDPOINT": self._endpoint,
            "AWS_ENDPOINT_URL": self._endpoint,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": REGION,
            "AWS_ALLOW_HTTP": "true",
            "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "false",
        }
        self._command = self._installed()
        self.start()

    def start(self) -> None:
        """Start it, where it is not running, with what it held; returns when it answers."""
        if self._process is not None:
            return
        environ = os.environ | {"MOTO_ENABLE_RECORDING": "1", "MOTO_RECORDER_FILEPATH": str(self._requests)}
        recorded = not self.verifies and self._requests.exists()
        if recorded:
            self._requests.write_text("".join(_whole(self._requests.read_text(encoding="utf-8"))), encoding="utf-8")
        with (self._folder / "s3.log").open("ab") as sink:
            self._process = subprocess.Popen(self._command, stdout=sink, stderr=sink, env=environ, cwd=self._folder)
        wait_until(self._ready, 60.0)
        if recorded:
            httpx.post(f"{self._endpoint}/moto-api/recorder/replay-recording", timeout=60).raise_for_status()

    def stop(self) -> None:
        """Stop it as a restart would."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Kill it. `start` brings it back."""
        self._end(signal.SIGKILL)

    def hang(self) -> None:
        """Let it take connections and answer nothing, until `wake`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def wake(self) -> None:
        """Let it answer again."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def url(self, bucket: str) -> str:
        """The address of a prefix in a bucket, which is made where there is none."""
        import boto3  # what moto brings takes half a second to import
        from botocore.config import Config

        client = boto3.client(
            "s3",
            endpoint_url=self._endpoint,
            aws_access_key_id=KEY,
            aws_secret_access_key=SECRET,
            region_name=REGION,
            config=Config(s3={"addressing_style": "path"}),
        )
        if bucket not in {known["Name"] for known in client.list_buckets()["Buckets"]}:
            client.create_bucket(Bucket=bucket)
        client.close()
        return f"s3://{bucket}/prefix"

    def _installed(self) -> list[str]:
        address = ["127.0.0.1", str(self._port)]
        try:
            versitygw = program("versitygw", HOW, *PLACES)
        except Missing as missing:
            self.verifies = False
            if importlib.util.find_spec("moto") is None:
                raise Missing(f"{missing}; or pip install 'moto[server]'") from None
            log.warning("s3 server", program="moto", verifies=self.verifies, better=str(missing))
            return [sys.executable, "-m", "moto.server", "-H", address[0], "-p", address[1]]
        self.verifies = True
        log.info("s3 server", program=versitygw, verifies=self.verifies)
        account = ["--access", KEY, "--secret", SECRET, "--region", REGION]
        return [versitygw, "--quiet", *account, "--port", ":".join(address), "posix", str(self.data)]

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(30)
            self._process = None

    def _ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self._folder / "s3.log").read_text(encoding="utf-8")
        try:
            return httpx.get(self._endpoint, timeout=2).status_code > 0  # 403: it knows nobody without a key
        except httpx.TransportError:
            return False


def _whole(recording: str) -> Iterator[str]:
    """Moto's entries, one a line: its threads write over each other's line ends, and a kill cuts the last one off."""
    decoder, position = json.JSONDecoder(), 0
    while found := re.compile(r"\s*(?=\{)").match(recording, position):
        try:
            entry, position = decoder.raw_decode(recording, found.end())
        except json.JSONDecodeError:
            return
        yield json.dumps(entry) + "\n"
