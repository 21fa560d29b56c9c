"""Which back end is taken, and what is said where there is none."""

import sys
import types

import pytest
from env_adapters import TaskError, make, opengl


@pytest.fixture(autouse=True)
def unnamed(monkeypatch):
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    monkeypatch.delitem(sys.modules, "dm_control._render", raising=False)


@pytest.mark.parametrize(
    ("working", "chosen", "tried"),
    [
        (("egl", "osmesa"), "egl", ["egl"]),
        (("osmesa",), "osmesa", ["egl", "osmesa"]),
        (("glfw",), "glfw", ["egl", "osmesa", "glfw"]),
    ],
)
def test_the_first_back_end_that_works_is_named_for_later_processes(monkeypatch, working, chosen, tried) -> None:
    asked: list[str] = []
    monkeypatch.setattr(opengl, "works", lambda one: asked.append(one) or one in working)
    assert opengl.choose() == chosen and asked == tried
    assert opengl.choose() == chosen and asked == tried  # MUJOCO_GL says it now; nothing is tried again


def test_a_named_back_end_is_left_alone(monkeypatch) -> None:
    monkeypatch.setattr(opengl, "works", lambda _: pytest.fail("tried"))
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    assert opengl.choose() == "osmesa"
    monkeypatch.setenv("MUJOCO_GL", "off")
    assert opengl.choose() is None


@pytest.mark.parametrize("task", ["dmc_vision_cartpole_balance", "dmc_quadruped_escape", "memory_maze_9x9"])
def test_without_opengl_the_packages_are_named(monkeypatch, task) -> None:
    monkeypatch.setattr(opengl, "works", lambda _: False)
    with pytest.raises(
        TaskError, match=r"draws images, and OpenGL works here neither .*libegl1.*libosmesa6.*MUJOCO_GL"
    ):
        make(task)


def test_without_opengl_the_state_is_still_observed(monkeypatch) -> None:
    monkeypatch.setattr(opengl, "works", lambda _: False)
    env = make("dmc_cartpole_balance")
    env.reset(seed=0)
    with pytest.raises(TaskError, match="libegl1"):
        env.unwrapped.render()


def test_a_back_end_is_tried_out_for_real() -> None:
    assert not opengl.works("no such thing")


def test_a_dm_control_that_was_imported_first_keeps_its_back_end(monkeypatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(opengl, "works", lambda one: asked.append(one) or one == "egl")
    monkeypatch.setitem(sys.modules, "dm_control._render", types.SimpleNamespace(BACKEND="glfw"))
    with pytest.raises(TaskError, match="imported with the back end glfw, which does not work here"):
        make("dmc_vision_cartpole_balance")
    assert asked == ["glfw"]
