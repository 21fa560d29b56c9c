"""Which OpenGL back end draws without a screen here: tried out once, then left to MUJOCO_GL for every later process."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import multiprocessing
import os
import subprocess
import sys

from env_adapters.errors import TaskError

# The names that MuJoCo's MUJOCO_GL knows. EGL can use a GPU, OSMesa draws on the processor, GLFW needs a screen.
BACK_ENDS = ("egl", "osmesa", "glfw")
_PACKAGES = {"egl": "libegl1 and libgl1", "osmesa": "libosmesa6", "glfw": "libglfw3 and a running display"}
_SECONDS = 60.0  # for a process that imports mujoco and makes a context
# A real context in a process of its own: OpenGL libraries cannot be unloaded, and a broken driver may take the process
# with it. mujoco is imported the way dm_control will, under the same variable.
_TRIAL = """
import mujoco
context = mujoco.GLContext(16, 16)
context.make_current()
model = mujoco.MjModel.from_xml_string("<mujoco/>")
mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
print("drawn")
import os
os._exit(0)  # some drivers fail while they unload, which is none of our business
"""


def choose() -> str | None:
    """The back end that MUJOCO_GL names, else the first that works, which MUJOCO_GL then names; None if none does.

    Worker processes inherit the variable, so the trial (about a second each) happens once. It has to come before
    dm_control is imported, which settles on a back end for good: on GLFW, where nobody names one.

    >>> choose() in (*BACK_ENDS, None)
    True
    """
    _before_mesa()
    if not os.environ.get("MUJOCO_GL"):
        settled = _settled()
        candidates = BACK_ENDS if settled is None else (settled,)
        os.environ["MUJOCO_GL"] = next((one for one in candidates if works(one)), "disable")
    named = os.environ["MUJOCO_GL"]
    return None if named in ("disable", "disabled", "off", "false", "0") else named


def _before_mesa() -> None:
    """Load triton's LLVM, where torch has brought triton, before that of Mesa's drivers.

    The other way round the process ends in a segmentation fault (triton 3.9 beside Mesa 22.3). Worker processes, which
    know no torch, are spared the third of a second.
    """
    if multiprocessing.parent_process() is None and importlib.util.find_spec("triton") is not None:
        with contextlib.suppress(ImportError):  # a triton that does not load harms nobody
            importlib.import_module("triton")


def _settled() -> str | None:
    """The back end of a dm_control that somebody has imported already."""
    loaded = sys.modules.get("dm_control._render")
    return None if loaded is None else str(loaded.BACKEND)


def works(back_end: str) -> bool:
    """Whether a context of this back end can be made here."""
    env = {name: value for name, value in os.environ.items() if name != "PYOPENGL_PLATFORM"}
    try:
        done = subprocess.run(
            [sys.executable, "-c", _TRIAL],
            env=env | {"MUJOCO_GL": back_end},
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False
    return "drawn" in done.stdout


def missing(task: str) -> TaskError:
    """What to say where nothing draws."""
    settled = _settled()
    if settled in BACK_ENDS:
        return TaskError(
            f"{task} draws images, and dm_control was imported with the back end {settled}, which does not work here: "
            "make the task before anything imports dm_control, or set MUJOCO_GL to egl or osmesa for the process"
        )
    wanted = "; ".join(f"{packages} for {one}" for one, packages in _PACKAGES.items())
    return TaskError(
        f"{task} draws images, and OpenGL works here neither with a screen nor without one: install a system package "
        f"(Debian's names: {wanted}), or name one that works in MUJOCO_GL"
    )
