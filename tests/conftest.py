"""Of all tests here: tasks that they ask for are noted in a place of their own, in no user's list and in no other worker's."""

from wm_run.testing.fixtures import asked_for_apart

__all__ = ["asked_for_apart"]
