"""The real server process with the fake engine: `run_server.py SERVER_SETTINGS_AS_JSON`."""

import sys
from pathlib import Path

import msgspec

from predictor.server.app import main
from predictor.settings import EngineSettings, ServerSettings

if __name__ == "__main__":
    settings = msgspec.json.decode(sys.argv[1], type=ServerSettings)
    fake = (sys.executable, str(Path(__file__).with_name("fake_engine.py")))
    sys.exit(main(EngineSettings(model="none"), settings, command=fake))
