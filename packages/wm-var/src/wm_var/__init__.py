"""Value alignment: a few lines that make any latent world model care about what its critic cares about."""

from wm_var.alignment import BlindCritic, ValueAlignment
from wm_var.drawing import probabilities, sample
from wm_var.world_parts import world_parts

__all__ = ["BlindCritic", "ValueAlignment", "probabilities", "sample", "world_parts"]
