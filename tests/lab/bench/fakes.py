"""Small servers that speak as ours does: twice 503, then one picture, always the same; and sides that start them."""

import base64
import io
import sys
from dataclasses import replace

from PIL import Image

from predictor.lab.bench.results import SideName
from predictor.lab.bench.sides import EAGER, Side

# Arguments: port, and the picture's file in base64.
SERVER = """
import json, sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
boot = time.clock_gettime(time.CLOCK_BOOTTIME)
left = [503, 503]
marks = [
    {"process": "server", "name": "process_start", "at": boot},
    {"process": "engine", "name": "process_start", "at": boot + 0.001},
    {"process": "engine", "name": "weights_read", "at": boot + 0.003},
    {"process": "server", "name": "imports", "at": boot + 0.004},
]
class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        order = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["parameters"]
        good = self.path == "/v2/models/sd/infer" and order["steps"] == 3
        self.send_response(left.pop() if left else 200 if good else 400)
        self.send_header("Server-Timing", "imports;dur=12.0")
        self.end_headers()
        image = {"name": "image", "data": sys.argv[2:] * order["num_images"]}
        self.wfile.write(json.dumps({"outputs": [image]}).encode())
    def do_GET(self):
        self.send_response(200 if self.path == "/timeline" else 404)
        self.end_headers()
        self.wfile.write(json.dumps({"marks": marks, "phases": [], "ready": True}).encode())
    def log_message(self, *_):
        pass
ThreadingHTTPServer.request_queue_size = 128
ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def program(text: str, name: SideName = "eager") -> Side:
    """A side that is asked as ours is, and is this Python program."""
    file = io.BytesIO()
    Image.linear_gradient("L").resize((128, 128)).save(file, "PNG")
    picture = base64.b64encode(file.getvalue()).decode()
    return replace(
        EAGER, name=name, command=lambda _model, _device, port, _: [sys.executable, "-c", text, str(port), picture]
    )
