"""A small deployment of real parts, which ends and begins again as Kubernetes would have it."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx

from predictor.settings import PREFIX
from tests.edge.running import Edge
from tests.parts.postgresql import PostgreSQL
from tests.parts.redis_server import RedisServer
from tests.parts.s3 import S3
from tests.processes import free_port, wait_until

ROOT = Path(__file__).parents[3]
MODEL = "shapes"
DATABASE = "chaos"
SECRET = "signs links and names images in chaos"
STARTING = 120.0  # seconds; five are usual, but the machine may be busy
PAUSE = 0.5  # seconds before what has ended is started again


class Predictor:
    """The demo model's predictor on one thread, always on the same port."""

    def __init__(self, folder: Path) -> None:
        self._port = free_port()
        self._output = folder / "predictor.log"
        self.url = f"http://127.0.0.1:{self._port}"
        self.start()

    def start(self) -> None:
        """Start it, or start it again; it is not ready yet."""
        model = ROOT / "predictor" / "models" / MODEL
        flags = {"model": model, "model-name": MODEL, "device": "cpu", "threads": 1}
        flags |= {"http-port": self._port, "grpc-port": free_port()}
        command = [sys.executable, "-m", "predictor.cli", "serve-predictor"]
        command += [f"--{name}={value}" for name, value in flags.items()]
        environ = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
        environ["OMP_NUM_THREADS"] = "1"
        with self._output.open("ab") as sink:
            self.popen = subprocess.Popen(command, stdout=sink, stderr=subprocess.STDOUT, env=environ, cwd=ROOT)

    def is_ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/v2/health/ready").status_code == 200
        except httpx.TransportError:
            return False

    def kill_engine(self) -> None:
        """Kill the process that computes, if there is one at the moment."""
        with contextlib.suppress(OSError):
            children = Path(f"/proc/{self.popen.pid}/task/{self.popen.pid}/children").read_text().split()
            for child in children:
                os.kill(int(child), signal.SIGKILL)


class World:
    """One predictor and two edges on PostgreSQL, Redis and an S3-compatible store; all are running and ready."""

    def __init__(self, folder: Path, postgresql: PostgreSQL, redis: RedisServer, store: S3) -> None:
        self.postgresql, self.redis, self.store = postgresql, redis, store
        self.predictor = Predictor(folder)
        settings = {
            "model_name": MODEL,
            "database_url": self.postgresql.create(DATABASE),
            "redis_url": self.redis.url,
            "images_url": self.store.url("images"),
            "secret": SECRET,
            "webhook_networks": "any",
            "attempts": 100,  # edges and predictors die more often here than anywhere
            "timeout_seconds": 150,
            "grace_seconds": 2,
        }
        self.edges = [
            Edge(folder / name, self.predictor.url, settings, self.store.environment) for name in ("edge-a", "edge-b")
        ]
        for edge in self.edges:
            edge.start(ready=False)
        wait_until(self._all_ready, STARTING)
        self.starts = 0  # how often something was started again
        self._over = threading.Event()
        self._keeper = threading.Thread(target=self._keep)
        self._keeper.start()

    def rows(self, statement: str) -> list[dict[str, object]]:
        """What the database answers to one statement."""
        return [dict(row) for row in self.postgresql.execute(statement, DATABASE)]

    def bring_up(self) -> None:
        """Start what is away, wake what is frozen; returns when everything is ready."""
        self.postgresql.start()
        self.store.start()
        self.redis.start()
        self.redis.wake()
        for program in self._programs():
            program.popen.send_signal(signal.SIGCONT)
        wait_until(self._all_ready, STARTING)

    def close(self) -> None:
        """Kill the predictor and the edges."""
        self._over.set()
        self._keeper.join()
        for program in self._programs():
            program.popen.kill()
            program.popen.wait()

    def _programs(self) -> list[Predictor | Edge]:
        return [self.predictor, *self.edges]

    def _all_ready(self) -> bool:
        with contextlib.suppress(AssertionError, httpx.TransportError):  # it has ended, and is started again
            return all(program.is_ready() for program in self._programs())
        return False

    def _keep(self) -> None:
        """Start again what has ended, for whatever reason."""
        while not self._over.wait(0.05):
            for program in self._programs():
                if program.popen.poll() is not None:
                    time.sleep(PAUSE)
                    self.starts += 1
                    program.start(False) if isinstance(program, Edge) else program.start()
