"""As much of Knative's queue-proxy as its drain needs: `queue_proxy.py PORT NAME`.

It answers probes, drains from the first SIGTERM on, and ends with the second (network/handlers/drain.go and
signals/signal.go of knative.dev/pkg). Prints a line when it listens and when it begins to drain.
"""

import os
import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

draining = False


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        assert self.headers["K-Network-Probe"] == "probe", (
            "anything else would reach the predictor, or count as traffic"
        )
        self.send_response(503 if draining else 200)
        if not draining:
            self.send_header("K-Network-Hash", self.headers["K-Network-Hash"])
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        pass


def terminated(*_: object) -> None:
    global draining
    if draining:
        os._exit(1)
    draining = True
    print("drains", flush=True)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, terminated)
    Path("/proc/self/comm").write_text(sys.argv[2])
    with ThreadingHTTPServer(("", int(sys.argv[1])), Handler) as server:
        print("listens", flush=True)
        server.serve_forever()
