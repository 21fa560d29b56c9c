"""A world model that learns by itself, and who has none that can."""

import pytest
from torch import nn
from wm_core.agent import Agent
from wm_core.errors import UserError


class Joined(Agent):
    """A method whose one update is of both."""

    def __init__(self) -> None:
        nn.Module.__init__(self)

    def learn(self, replay):
        return {}

    def update(self, *batches):
        return {}, {}


class Parted(Joined):
    def update_world(self, *batches):
        return {}, {}


def test_the_world_model_alone_learns_where_the_method_can_part_it():
    agent = Parted()
    assert agent.updating == agent.update
    agent.learn_alone()
    assert agent.updating == agent.update_world


def test_a_method_that_cannot_part_it_says_so():
    agent = Joined()
    with pytest.raises(UserError, match="Joined learns world model and behaviour in one: leave out --behaviour"):
        agent.learn_alone()
    assert not agent.alone and agent.updating == agent.update
