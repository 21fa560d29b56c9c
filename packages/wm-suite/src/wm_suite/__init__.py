"""What looks at many runs: run folders -> groups of seeds -> curves with intervals -> a report. Needs numpy and scipy."""

from wm_suite.errors import SuiteError
from wm_suite.finals import finals, table
from wm_suite.gather import Logged, find, legible, read
from wm_suite.groups import Group, group
from wm_suite.links import export
from wm_suite.picture import picture
from wm_suite.report import page
from wm_suite.results import damaged
from wm_suite.statistics import Curve

__all__ = [
    "Curve",
    "Group",
    "Logged",
    "SuiteError",
    "damaged",
    "export",
    "finals",
    "find",
    "group",
    "legible",
    "page",
    "picture",
    "read",
    "table",
]
