"""What a world model is: what flows between its parts, what each promises, DreamerV3's parts, and one update.

>>> from wm_core import RSSM, Dynamics
>>> isinstance(RSSM(deter=8, stoch=(4, 4), embed=8, action=2, hidden=8), Dynamics)
True

A name is imported when it is asked for, so that `wm_core.errors` and `wm_core.sizes` need no torch.
"""

from typing import TYPE_CHECKING

__all__ = [
    "RSSM",
    "ActorCritic",
    "Agent",
    "Backbone",
    "Batch",
    "Behaviour",
    "Carry",
    "Clock",
    "Dream",
    "Dynamics",
    "Encoder",
    "Experience",
    "Head",
    "JointBehaviour",
    "Latent",
    "Learner",
    "Metrics",
    "OptimisingBehaviour",
    "Parallel",
    "Past",
    "Regulariser",
    "Start",
    "Steps",
    "Trace",
    "Update",
    "UserError",
    "WorldModel",
    "joint_update",
    "loss_scales",
    "world_update",
]

if TYPE_CHECKING:
    from wm_core.actor_critic import ActorCritic
    from wm_core.agent import Agent
    from wm_core.clock import Clock
    from wm_core.contracts import (
        Backbone,
        Behaviour,
        Dynamics,
        Encoder,
        Experience,
        Head,
        JointBehaviour,
        Metrics,
        OptimisingBehaviour,
        Regulariser,
        Update,
    )
    from wm_core.errors import UserError
    from wm_core.joint import joint_update, loss_scales, world_update
    from wm_core.learner import Learner
    from wm_core.parallel import Parallel
    from wm_core.rssm import RSSM
    from wm_core.types import Batch, Carry, Dream, Latent, Past, Start, Steps, Trace
    from wm_core.world import WorldModel
else:  # hidden from type checkers, which would believe in any name
    _HOMES = {
        "actor_critic": {"ActorCritic"},
        "agent": {"Agent"},
        "clock": {"Clock"},
        "contracts": {
            "Backbone",
            "Behaviour",
            "Dynamics",
            "Encoder",
            "Experience",
            "Head",
            "JointBehaviour",
            "Metrics",
            "OptimisingBehaviour",
            "Regulariser",
            "Update",
        },
        "errors": {"UserError"},
        "joint": {"joint_update", "loss_scales", "world_update"},
        "learner": {"Learner"},
        "parallel": {"Parallel"},
        "rssm": {"RSSM"},
        "types": {"Batch", "Carry", "Dream", "Latent", "Past", "Start", "Steps", "Trace"},
        "world": {"WorldModel"},
    }

    def __getattr__(name):
        import importlib

        for home, names in _HOMES.items():
            if name in names:
                return getattr(importlib.import_module(f"{__name__}.{home}"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__():
        return sorted({*globals(), *__all__})
