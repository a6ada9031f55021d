"""What native libraries write to standard error, kept for error messages.

libtorch and compiled packages report failure by a return code and write the reason to file descriptor 2. A thread
passes everything on to where it was going, and remembers the end of it.
"""

import atexit
import faulthandler
import functools
import os
import threading

KEPT = 8192  # bytes: an exception's text, and the C++ frames that follow it
PATIENCE = 2.0  # seconds that a reason may take from the library's write to this thread


@functools.cache
def stderr_tail() -> "StderrTail":
    """This process's only one, until it exits; a crash is reported past it, for what is in the pipe then is lost."""
    tail = StderrTail()
    atexit.register(tail.close)
    faulthandler.enable(tail.original)
    return tail


class StderrTail:
    """Takes descriptor 2 over until `close`."""

    def __init__(self) -> None:
        self._original = os.dup(2)
        self._reader, writer = os.pipe()
        os.dup2(writer, 2)
        os.close(writer)
        self._kept = b""
        self._awaited: tuple[bytes, threading.Event] | None = None
        self._asking = threading.Lock()
        self._thread = threading.Thread(target=self._relay, name="stderr", daemon=True)
        self._thread.start()

    @property
    def original(self) -> int:
        """The descriptor that was 2."""
        return self._original

    def take(self) -> str:
        """What was written since the last call, up to now."""
        with self._asking:
            # The pipe keeps the order: once the thread has seen this line, it has seen all before it.
            line, seen = f"sdzero-{os.urandom(8).hex()}".encode(), threading.Event()
            self._awaited = line, seen
            os.write(2, line + b"\n")
            seen.wait(PATIENCE)
            taken, self._kept = self._kept, b""
        return taken.decode(errors="replace").strip()

    def close(self) -> None:
        """Give descriptor 2 back."""
        os.dup2(self._original, 2)
        self._thread.join(PATIENCE)
        os.close(self._original)

    def _relay(self) -> None:
        unfinished = b""
        while chunk := os.read(self._reader, 65536):
            *lines, unfinished = (unfinished + chunk).split(b"\n")
            for line in lines:
                if self._awaited and line.endswith(self._awaited[0]):
                    rest = line.removesuffix(self._awaited[0])
                    self._pass_on(rest + b"\n" if rest else b"")
                    self._awaited[1].set()
                else:
                    self._pass_on(line + b"\n")
        self._pass_on(unfinished)
        os.close(self._reader)

    def _pass_on(self, text: bytes) -> None:
        self._kept = (self._kept + text)[-KEPT:]
        while text:
            text = text[os.write(self._original, text) :]
