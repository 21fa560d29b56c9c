"""The tools import each other by their plain names, as they do when one of them is run."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent))

collect_ignore = ["book/look.py", "look_play.py"]  # have environments of their own
