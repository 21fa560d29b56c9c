"""Complex diagonal recurrences with resets, and the S5 layers of R2I built on them; needs torch alone."""

from wm_ssm.hippo import hippo_n
from wm_ssm.plain import plain_scan
from wm_ssm.s5 import S5, Negative, bilinear, by_name, zoh
from wm_ssm.scan import linear_scan
from wm_ssm.stack import S5Block, S5Stack

__all__ = [
    "S5",
    "Negative",
    "S5Block",
    "S5Stack",
    "bilinear",
    "by_name",
    "hippo_n",
    "linear_scan",
    "plain_scan",
    "zoh",
]
