"""Chromium, for pages that people see."""

import shutil

from tests.parts.part import program

HOW = "apt install chromium, or Chromium or Chrome from wherever your system has it"


def chromium() -> str:
    """The path of the browser.

    Raises:
        Missing: none of its family is installed.
    """
    kin = (shutil.which(name) for name in ("chromium-browser", "google-chrome", "google-chrome-stable"))
    return next((found for found in kin if found), None) or program("chromium", HOW)
