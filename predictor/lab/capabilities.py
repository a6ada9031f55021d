"""`sdzero capabilities`: what a model allows, as the running predictor would say it, before any predictor runs.

The edge checks requests with it, so that one which must be refused never wakes a GPU.
"""

import argparse
import os
import sys
from pathlib import Path

import msgspec

from predictor.core.request import Capabilities
from predictor.engine.baked.bundle import BundleError
from predictor.engine.folder import FolderError
from predictor.engine.load import foreseen
from predictor.settings import EngineSettings, ServerSettings, add_arguments, load, refuse_unknown

EPILOG = """\
Give it the flags and variables of `sdzero serve-predictor`, for the limits are settings. Nothing is asked of the
device: with --device cuda it can run anywhere. A predictor on a device with little memory may allow fewer pixels than
this says, and has the last word. Given both a model and a bundle, it tells of the bundle.
"""


def main(argv: list[str]) -> int:
    """Print or write the capabilities; returns the exit status: 0, or 2 if the folder is no model or no bundle."""
    parser = argparse.ArgumentParser(
        prog="sdzero capabilities",
        description="What a model or a bundle allows, as JSON for the edge; reads configurations and no weights.",
        epilog=EPILOG,
        allow_abbrev=False,
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="write it there instead of printing it")
    add_arguments(parser, EngineSettings)
    given = vars(parser.parse_args(argv))
    try:
        refuse_unknown([EngineSettings, ServerSettings], os.environ)
        settings = load(EngineSettings, given, os.environ)
    except ValueError as error:
        parser.error(str(error))
    try:
        text = shown(foreseen(settings))
        if given["out"]:
            given["out"].write_text(text, encoding="utf-8")
    except (FolderError, BundleError, OSError) as error:
        print(f"sdzero capabilities: {error}", file=sys.stderr)
        return 2
    if not given["out"]:
        print(text, end="")
    return 0


def shown(capabilities: Capabilities) -> str:
    """JSON text that people can read as well."""
    return msgspec.json.format(msgspec.json.encode(capabilities), indent=2).decode() + "\n"
