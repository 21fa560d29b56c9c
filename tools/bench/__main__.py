"""`python tools/bench COMMAND` runs this folder; its files are imported as `bench.NAME`."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])  # instead of this folder, whose names are everyday words

from bench.commands import main

main()
