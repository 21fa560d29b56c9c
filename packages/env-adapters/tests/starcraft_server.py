"""A StarCraft II server with a game of its own behind the real protocol: what SMAC and SMACv2 ask of one, no more.

`install(folder)` lays out an installation whose binary is this file. It speaks s2clientprotocol on /sc2api as the game of
version 4.10 does: a status in every response, an error in words for what may not be asked now, answers in binary frames,
requests in binary or text frames (pysc2 sends protobuf in the latter). The maps of `ROSTERS` have units, which appear again
once an observation has shown none, as the maps' own triggers have it; any other map is empty until units are created.

Every unit shoots at a range of 6 and hits once in 8 game loops. SC2_TEST_ALLIES and SC2_TEST_ENEMIES are the damage of a hit
(0 makes a side harmless; SC2_TEST_WALK=0 keeps enemies where they are). Each server writes its process id into the folder
`pids` of the installation; one that comes to the game loop which the installation's file `dies` names takes the file away and
kills itself.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import math
import os
import pathlib
import signal
import sys
from dataclasses import dataclass

BUILD = 75689  # 4.10
SIZE = 32  # cells of a side of every map
TYPES = 200  # how many there are; the last nine are the ones that SMACv2's allies are of
CUSTOM = TYPES - 9
MOVE, ATTACK, STOP, HEAL = 16, 23, 4, 386  # abilities
RANGE, SIGHT, SPEED, COOLDOWN = 6.0, 9.0, 0.2, 8  # cells, cells, cells a game loop, game loops
# unit type -> health, shield; SMACv2's own types come in the order of their names
STATS = {
    9: (30, 0), 4: (200, 150), 107: (90, 0), 51: (125, 0), 48: (45, 0), 54: (150, 0), 74: (80, 80), 73: (100, 50), 105: (35, 0)
}  # fmt: skip
MEDIVAC = 54
BASE = {kind: kind for kind in STATS} | {CUSTOM + at: kind for at, kind in enumerate(STATS)}  # what a type is like
STATS[98], BASE[98] = (300, 0), 98  # a spine crawler, which no ally is
# map -> (type, count) of each side; allies have types of the map's own, in this order
ROSTERS: dict[str, tuple[tuple[tuple[int, int], ...], ...]] = {
    "3m": (((48, 3),),) * 2,
    "8m": (((48, 8),),) * 2,
    "25m": (((48, 25),),) * 2,
    "5m_vs_6m": (((48, 5),), ((48, 6),)),
    "2m_vs_1z": (((48, 2),), ((73, 1),)),
    "2s_vs_1sc": (((74, 2),), ((98, 1),)),
    "3s_vs_3z": (((74, 3),), ((73, 3),)),
    "3s_vs_4z": (((74, 3),), ((73, 4),)),
    "3s_vs_5z": (((74, 3),), ((73, 5),)),
    "2c_vs_64zg": (((4, 2),), ((105, 64),)),
    "corridor": (((73, 6),), ((105, 24),)),
    "3s5z": (((74, 3), (73, 5)),) * 2,
    "2s3z": (((74, 2), (73, 3)),) * 2,
    "1c3s5z": (((4, 1), (74, 3), (73, 5)),) * 2,
    "MMM": (((51, 2), (48, 7), (54, 1)),) * 2,
    "MMM2": (((51, 2), (48, 7), (54, 1)), ((51, 3), (48, 8), (54, 1))),
    "bane_vs_bane": (((9, 4), (105, 20)),) * 2,
}
OWN = 1900  # the first type of a map's own


def install(folder: pathlib.Path, maps: tuple[str, ...] = (*ROSTERS, "32x32_flat")) -> pathlib.Path:
    """An installation of StarCraft II whose binary is this server; the folder is what SC2PATH should name."""
    binary = folder / "Versions" / f"Base{BUILD}" / "SC2_x64"
    for one in (binary.parent, folder / "Maps" / "SMAC_Maps", folder / "pids"):
        one.mkdir(parents=True)
    binary.write_text(
        f"#!{sys.executable}\nimport runpy, sys\nsys.argv[0] = {__file__!r}\nrunpy.run_path({__file__!r}, run_name='__main__')\n"
    )
    binary.chmod(0o755)
    for name in maps:
        (folder / "Maps" / "SMAC_Maps" / f"{name}.SC2Map").write_bytes(b"MPQ\x1a" + name.encode())
    return folder


@dataclass
class Unit:
    """One unit of player 1 or 2; order is ("move", x, y), ("attack", tag), ("heal", tag) or nothing."""

    tag: int
    kind: int
    base: int
    owner: int
    x: float
    y: float
    health: float
    shield: float
    cooldown: int = 0
    order: tuple[object, ...] = ()


class Game:
    """Units on a flat map, stepped by game loops."""

    def __init__(self, name: str) -> None:
        self.roster = ROSTERS.get(name)
        self.units: dict[int, Unit] = {}
        self.loop, self._tags, self._seen_empty = 0, itertools.count(0x100000001), True
        hits = [float(os.environ.get(f"SC2_TEST_{side}", "6")) for side in ("ALLIES", "ENEMIES")]
        self._damage = {1: hits[0], 2: hits[1]}
        self._walk = os.environ.get("SC2_TEST_WALK", "1") != "0"
        self._appear()

    def create(self, kind: int, owner: int, x: float, y: float, base: int | None = None) -> None:
        base = BASE[kind] if base is None else base
        health, shield = STATS[base]
        x, y = min(max(x, 0.0), SIZE - 0.01), min(max(y, 0.0), SIZE - 0.01)
        tag = next(self._tags)
        self.units[tag] = Unit(tag, kind, base, owner, x, y, health, shield)

    def kill(self, tags: list[int]) -> None:
        for tag in tags:
            self.units.pop(tag, None)

    def observed(self) -> None:
        """An observation has been given."""
        self._seen_empty = self._seen_empty or not self.units

    def step(self, count: int) -> None:
        for _ in range(count):
            self.loop += 1
            if not self.units:
                self._appear()
            for unit in list(self.units.values()):
                if unit.tag in self.units:
                    self._act(unit)

    def _appear(self) -> None:
        if self.roster is None or not self._seen_empty or self.units:
            return
        self._seen_empty = False
        for owner, side in enumerate(self.roster, 1):
            kinds = [
                (OWN + at if owner == 1 else kind, kind) for at, (kind, count) in enumerate(side) for _ in range(count)
            ]
            for at, (kind, base) in enumerate(kinds):
                self.create(kind, owner, 9.0 if owner == 1 else 23.0, SIZE / 2 + at - len(kinds) / 2, base)

    def _act(self, unit: Unit) -> None:
        unit.cooldown = max(0, unit.cooldown - 1)
        if unit.owner == 2:
            foes = [one for one in self.units.values() if one.owner == 1]
            if not foes:
                return
            near = min(foes, key=lambda one: (_distance(unit, one), one.tag))
            if _distance(unit, near) <= RANGE:
                self._hit(unit, near)
            elif self._walk:
                self._go(unit, near.x, near.y)
            return
        if unit.order and unit.order[0] == "move":
            self._go(unit, float(unit.order[1]), float(unit.order[2]))  # type: ignore[arg-type]
        elif unit.order and (target := self.units.get(unit.order[1])) is not None:  # type: ignore[call-overload]
            if _distance(unit, target) > RANGE:
                self._go(unit, target.x, target.y)
            elif unit.order[0] == "heal":
                target.health = min(target.health + 1, STATS[target.base][0])
            else:
                self._hit(unit, target)

    def _go(self, unit: Unit, x: float, y: float) -> None:
        far = math.hypot(x - unit.x, y - unit.y)
        share = min(1.0, SPEED / far) if far else 0.0
        unit.x = min(max(unit.x + share * (x - unit.x), 0.0), SIZE - 0.01)
        unit.y = min(max(unit.y + share * (y - unit.y), 0.0), SIZE - 0.01)

    def _hit(self, unit: Unit, target: Unit) -> None:
        damage = self._damage[unit.owner]
        if unit.cooldown or damage == 0 or unit.base == MEDIVAC:
            return
        unit.cooldown = COOLDOWN
        shielded = min(target.shield, damage)
        target.shield -= shielded
        target.health -= damage - shielded
        if target.health <= 0:
            self.kill([target.tag])


def _distance(one: Unit, two: Unit) -> float:
    return math.hypot(one.x - two.x, one.y - two.y)


class Session:
    """Requests of one client -> responses."""

    def __init__(self, dies: pathlib.Path | None = None) -> None:
        from s2clientprotocol import sc2api_pb2

        self.api, self.dies = sc2api_pb2, dies
        self.status = sc2api_pb2.launched
        self.game: Game | None = None
        self.map = ""

    def answer(self, request):
        """The response to a request. What may not be asked now is an error in words, as the game has it."""
        name = request.WhichOneof("request")
        response = self.api.Response(id=request.id)
        method = getattr(self, f"_{name}", None)
        if method is None:
            response.error.append(f"the server has no answer to {name}")
        elif self.game is None and name not in ("ping", "create_game", "join_game", "quit"):
            response.error.append(f"{name} is for a game that is under way")
        else:
            method(getattr(request, name), getattr(response, name))
            getattr(response, name).SetInParent()
        response.status = self.status
        return response

    def _ping(self, _, response) -> None:
        response.game_version, response.data_version = "4.10.0.75689", "B89B5D6FA7CBF6452E721311BFBC6CB2"
        response.data_build = response.base_build = BUILD

    def _create_game(self, request, response) -> None:
        if not request.local_map.map_data.startswith(b"MPQ"):
            response.error = self.api.ResponseCreateGame.InvalidMapData
        elif [one.type for one in request.player_setup] != [self.api.Participant, self.api.Computer]:
            response.error = self.api.ResponseCreateGame.InvalidPlayerSetup
        else:
            self.map = pathlib.PurePath(request.local_map.map_path).stem
            self.status = self.api.init_game

    def _join_game(self, request, response) -> None:
        if self.status != self.api.init_game:
            response.error = self.api.ResponseJoinGame.GameFull
        elif not request.options.raw:
            response.error = self.api.ResponseJoinGame.MissingOptions
        else:
            response.player_id, self.status, self.game = 1, self.api.in_game, Game(self.map)

    def _game_info(self, _, response) -> None:
        response.map_name = self.map
        raw = response.start_raw
        for grid, bits, byte in ((raw.pathing_grid, 1, 255), (raw.terrain_height, 8, 127)):
            grid.bits_per_pixel, grid.size.x, grid.size.y = bits, SIZE, SIZE
            grid.data = bytes([byte]) * (SIZE * SIZE * bits // 8)
        raw.map_size.x = raw.map_size.y = SIZE
        raw.playable_area.p1.x = raw.playable_area.p1.y = SIZE

    def _data(self, request, response) -> None:
        if request.unit_type_id:
            for kind in range(TYPES):
                response.units.add(unit_id=kind, name=f"type {kind}", available=True)

    def _step(self, request, response) -> None:
        assert self.game is not None
        self.game.step(max(1, request.count))
        with contextlib.suppress(FileNotFoundError):  # there is none, or another game was first
            if self.dies is not None and self.game.loop >= int(self.dies.read_text()):
                self.dies.unlink()
                os.kill(os.getpid(), signal.SIGKILL)
        response.simulation_loop = self.game.loop

    def _action(self, request, response) -> None:
        assert self.game is not None
        for one in request.actions:
            command = one.action_raw.unit_command
            target = command.WhichOneof("target")
            order: tuple[object, ...] | None = None
            if command.ability_id == MOVE and target == "target_world_space_pos":
                order = "move", command.target_world_space_pos.x, command.target_world_space_pos.y
            elif command.ability_id == ATTACK and command.target_unit_tag in self.game.units:
                order = "attack", command.target_unit_tag
            elif command.ability_id == HEAL and command.target_unit_tag in self.game.units:
                order = "heal", command.target_unit_tag
            elif command.ability_id == STOP:
                order = ()
            mine = [tag for tag in command.unit_tags if tag in self.game.units and self.game.units[tag].owner == 1]
            for tag in mine if order is not None else ():
                self.game.units[tag].order = order  # type: ignore[assignment]
            response.result.append(1 if mine and order is not None else 2)  # Success, NotSupported

    def _debug(self, request, _) -> None:
        assert self.game is not None
        for one in request.debug:
            if one.WhichOneof("command") == "kill_unit":
                self.game.kill(list(one.kill_unit.tag))
            elif one.WhichOneof("command") == "create_unit":
                made = one.create_unit
                for _ in range(made.quantity):
                    self.game.create(made.unit_type, made.owner, made.pos.x, made.pos.y)

    def _observation(self, _, response) -> None:
        assert self.game is not None
        seen = response.observation
        seen.game_loop, seen.player_common.player_id = self.game.loop, 1
        seen.raw_data.player.SetInParent()
        for unit in self.game.units.values():
            full = STATS[unit.base]
            one = seen.raw_data.units.add(
                tag=unit.tag,
                unit_type=unit.kind,
                owner=unit.owner,
                health=unit.health,
                health_max=full[0],
                shield=unit.shield,
                shield_max=full[1],
                weapon_cooldown=unit.cooldown,
                alliance=1 if unit.owner == 1 else 4,
                build_progress=1.0,
            )
            one.pos.x, one.pos.y, one.pos.z = unit.x, unit.y, 0.0
        self.game.observed()

    def _quit(self, _, __) -> None:
        self.status = self.api.quit


def main() -> None:
    """Serve one client after another on -listen and -port, until one says quit."""
    os.environ["PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION"] = (
        "python"  # of s2clientprotocol's messages; before they are imported
    )
    ap = argparse.ArgumentParser()
    ap.add_argument("-listen", default="127.0.0.1")
    ap.add_argument("-port", type=int, required=True)
    ap.add_argument("-dataDir", type=pathlib.Path)
    given, _ = ap.parse_known_args()
    from s2clientprotocol import sc2api_pb2
    from websockets.exceptions import ConnectionClosed
    from websockets.sync.server import serve

    def talk(connection) -> None:
        if connection.request.path != "/sc2api":
            return
        session = Session(given.dataDir and given.dataDir / "dies")
        try:
            while session.status != sc2api_pb2.quit:
                asked = connection.recv(decode=False)  # text frames hold protobuf, which is no text
                connection.send(session.answer(sc2api_pb2.Request.FromString(asked)).SerializeToString())
        except ConnectionClosed:
            return
        os._exit(0)  # as the game: at once

    if given.dataDir is not None and (given.dataDir / "pids").is_dir():
        (given.dataDir / "pids" / str(os.getpid())).touch()
    with serve(
        talk, given.listen, given.port, max_size=None, compression=None, ping_interval=None
    ) as server:  # the game pings nobody
        server.serve_forever()


if __name__ == "__main__":
    main()
