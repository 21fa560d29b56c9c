"""The README's world model trains with the marked lines and without them."""

import re
from pathlib import Path

import torch

README = (Path(__file__).parents[1] / "README.md").read_text()


def code(marked):
    (text,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    lines = [line for line in text.splitlines() if marked or not line.endswith("# +")]
    if not marked:
        lines = [line for line in lines if "var" not in line]
    return lines


def trained(lines, updates):
    text = "\n".join(lines).replace("range(20)", f"range({updates})")
    space = {}
    exec(text.replace("== 9", f"== {max(0, updates - 11)}"), space)
    return space["world"].state_dict()


def test_the_example_runs():
    trained(code(marked=True), 20)


def test_three_lines_add_it_to_a_world_model_of_sixty():
    added = [line for line in code(marked=True) if line.endswith("# +")]
    assert len(added) == 3
    assert 40 <= len([line for line in code(marked=False) if line.strip()]) <= 60


def test_without_the_lines_it_is_the_same_until_the_warm_up_ends():
    one, other = (trained(code(marked), 11) for marked in (True, False))
    assert all(torch.equal(one[name], other[name]) for name in one)
    one, other = (trained(code(marked), 13) for marked in (True, False))
    assert any(not torch.equal(one[name], other[name]) for name in one)
