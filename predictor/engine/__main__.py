"""`python -m predictor.engine`: started by the server, not by people."""

import sys

from predictor.engine.loop import main

sys.exit(main(sys.argv[1:]))
