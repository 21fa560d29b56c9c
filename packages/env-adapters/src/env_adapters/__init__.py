"""Environments as batched step dictionaries: Atari 100k, DeepMind Control, Memory Maze, bsuite, POPGym, gymnasium, toys.

>>> import numpy as np
>>> env = make_vec("toy:catch", 4)
>>> step = env.reset(seed=0)
>>> sorted(step)
['action', 'first', 'image', 'last', 'reward', 'terminal']
>>> step = env.step(np.zeros((4, env.action_spec.size), np.float32))
"""

from env_adapters.actions import ActionSpec, action_spec, decode_action, encode_action
from env_adapters.check import check_env
from env_adapters.errors import CheckError, TaskError
from env_adapters.make import make, make_vec, tasks
from env_adapters.parallel import parallel_env
from env_adapters.team import TeamEnv
from env_adapters.vector import VectorEnv

__all__ = [
    "ActionSpec",
    "CheckError",
    "TaskError",
    "TeamEnv",
    "VectorEnv",
    "action_spec",
    "check_env",
    "decode_action",
    "encode_action",
    "make",
    "make_vec",
    "parallel_env",
    "tasks",
]
