"""The server's own fixture, for what a real predictor says of its start."""

from tests.server.conftest import start as start_server

__all__ = ["start_server"]
