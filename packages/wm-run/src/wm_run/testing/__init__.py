"""Laws of a run, which an app can be held to: stopped or killed and resumed, it is the run that was never interrupted.

>>> from wm_run.testing import check_killed, check_resumed  # check_resumed("dreamer", ["--preset", "tiny"], steps=200)
"""

from wm_run.testing.app import check_app
from wm_run.testing.data import check_data
from wm_run.testing.killed import PLACES, check_killed
from wm_run.testing.nursery import Failed
from wm_run.testing.stopped import check_goes_on_alike, check_resumed

__all__ = ["PLACES", "Failed", "check_app", "check_data", "check_goes_on_alike", "check_killed", "check_resumed"]
