"""What `smac:` and `smacv2:` need on this machine -> where it is, or one sentence with the line that installs it."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import sys
from pathlib import Path

from env_adapters.errors import TaskError
from env_adapters.plugins import run_with

_EXTRA = ("pysc2", "s2clientprotocol")
_CODE = Path("smacv2", "env", "starcraft2")  # in a checkout
_BINARY = {"linux": "SC2_x64", "darwin": "SC2.app/Contents/MacOS/SC2"}


def check(map_file: str) -> None:
    """TaskError for the first thing that is missing: the extra's packages, SMACv2's code, the game, the map's file."""
    for module in _EXTRA:
        if importlib.util.find_spec(module) is None:
            raise TaskError(f"SMAC needs {module}, which is not installed: {run_with(module)}")
    maps = code() / "maps" / "SMAC_Maps"
    game = starcraft()
    file = game / "Maps" / "SMAC_Maps" / f"{map_file}.SC2Map"
    if not file.is_file():
        have = shlex.quote(str(maps)) if maps.is_dir() else "smacv2/env/starcraft2/maps/SMAC_Maps of a checkout"
        to = shlex.quote(str(game / "Maps"))
        raise TaskError(
            f"StarCraft II lacks the map {map_file}.SC2Map in {file.parent}; `mkdir -p {to} && cp -r {have} {to}`"
        )


def code() -> Path:
    """The folder smacv2/env/starcraft2 of the checkout that SMACV2_SOURCE names, else of an installed smacv2."""
    clone = "`git clone https://github.com/oxwhirl/smacv2` and set SMACV2_SOURCE to its folder"
    if named := os.environ.get("SMACV2_SOURCE"):
        found = Path(named).expanduser() / _CODE
        if not (found / "starcraft2.py").is_file():
            raise TaskError(f"SMACV2_SOURCE is {named}, which is no checkout of SMACv2 (it has no {_CODE}); {clone}")
        return found.absolute()
    spec = importlib.util.find_spec("smacv2")
    for folder in (spec and spec.submodule_search_locations) or ():
        found = Path(folder).parent / _CODE
        if (found / "starcraft2.py").is_file():
            return found.absolute()
    raise TaskError(f"SMAC needs the code of SMACv2, which is on no package registry; {clone}")


def starcraft() -> Path:
    """The folder of StarCraft II: SC2PATH, else where its installer puts it. TaskError where it holds no game."""
    default = "~/StarCraftII" if sys.platform != "darwin" else "/Applications/StarCraft II"
    folder = Path(os.environ.get("SC2PATH") or default).expanduser()
    if builds(folder):
        return folder
    raise TaskError(
        f"StarCraft II is not in {folder} (no Versions/Base*/{_BINARY.get(sys.platform, 'SC2_x64')} to execute); "
        "`curl -O https://blzdistsc2-a.akamaihd.net/Linux/SC2.4.10.zip && unzip SC2.4.10.zip -d ~` (the password, with which one "
        "agrees to Blizzard's licence, is on github.com/Blizzard/s2client-proto), or set SC2PATH to its folder"
    )


def builds(folder: Path) -> list[int]:
    """Numbers of the builds that an installation can start, the newest last."""
    name = _BINARY.get(sys.platform, "SC2_x64")
    found = {one: re.fullmatch(r"Base(\d+)", one.name) for one in folder.glob("Versions/Base*")}
    return sorted(int(number[1]) for one, number in found.items() if number and os.access(one / name, os.X_OK))
