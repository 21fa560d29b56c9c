"""The first thing to run on a card: does it do what a CPU does, and how fast? Offline; torch 2.11 or newer, Python 3.11 to 3.13.

gpu.py                          all that is not done yet for this commit, card and torch; under nine minutes
gpu.py --only graph half        some parts, done or not: their names or how they begin
gpu.py --r2dreamer FOLDER       12m against a checkout of r2dreamer too
gpu.py --list                   the parts
gpu.py --rehearse               every part on a CPU with stand-ins: what is shown says nothing of a card

Each part is a row of docs/results/gpu.jsonl, written as soon as it is done, with hardware, commit and versions; the table
of the newest rows is docs/results/gpu.md. What was done stays done: run it again and it goes on, also where the time
(--minutes) was up or a part took the process down with it. A rehearsal's rows say so and go to a file of their own
(--out), never to that one. Exit code 1 where a check failed.

A recording on a CPU is that of `wm_core.dispatched`, Triton runs in its interpreter, two ranks meet over gloo, networks
have the size `tiny`; a stand-in plays r2dreamer.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
ROWS = ROOT / "docs" / "results" / "gpu.jsonl"
APPS = ("dreamer", "po_dreamer", "r2i", "storm")
TEAMS = ("dmawm", "mappo")  # of several agents
FIGURES = (
    "dreamer 1m, vectors",
    *(f"dreamer {size}, pixels" for size in ("12m", "50m", "200m")),
    *(f"{app}, pixels" for app in APPS[1:]),
    *("po_dreamer, maze", "r2i, maze", "dmawm, 25 marines", "dmawm, coop_mining", "po_dreamer, 5 units"),
)
NAMES = (
    "environment",
    *(f"{kind} {app}" for kind in ("graph", "half") for app in (*APPS, *TEAMS)),
    *("triton", "resume", "ranks"),
    *(f"update {name}" for name in FIGURES),
    *("act 1", "act 16", "loop 16", "peer r2dreamer"),
)
PUBLISHED = {  # both size1m on vectors, 16 x 64, on a GB200
    "update dreamer 1m, vectors": "17.8 TorchRL as a graph, 22.0 the official JAX code",
}
START, LIMIT = 200.0, 150.0  # seconds that a worker may take to begin, and for a part; then it is ended
SAME = ("commit", "hardware", "torch", "rehearsal")  # rows that agree in these are of one place
HOST = "host"  # a worker's line that says where it runs


def part(name: str) -> Callable[[Any], Any]:
    """What a part does in a place."""
    import gpu_checks
    import gpu_figures

    kind, _, which = name.partition(" ")
    found: dict[str, Callable[[Any], Any]] = {
        "graph": lambda place: gpu_checks.graph(place, which),
        "half": lambda place: gpu_checks.half(place, which),
        "update": lambda place: gpu_figures.update(place, which),
        "act": lambda place: gpu_figures.act(place, int(which)),
        "loop": lambda place: gpu_figures.loop(place, int(which)),
        "peer": gpu_figures.peer,
    }
    return found[kind] if kind in found else getattr(gpu_checks, kind)


def sources() -> list[str]:
    """Where this checkout's modules lie, for an environment in which they are not installed."""
    return [str(ROOT / "tools"), *(str(path) for path in sorted(ROOT.glob("*/*/src")))]


# ---- the worker: one process for as many parts as it survives


def work(rehearse: bool, peer: str | None) -> None:
    """Say where this is, read which parts are wanted, and tell a line of JSON for each."""
    sys.path[:0] = [path for path in sources() if path not in sys.path]
    try:
        import torch
        from gpu_place import Failed, Left, Place
        from wm_run.machine import describe_environment
    except ModuleNotFoundError as error:
        tell({HOST: {}, "broken": f"the module {error.name} is missing here: install it"})
        return
    if not rehearse and not torch.cuda.is_available():
        tell({HOST: {}, "broken": "torch sees no GPU here: --rehearse runs every part on a CPU with stand-ins"})
        return
    about, place = describe_environment(), Place(rehearse, Path(peer) if peer else None)
    hardware = about["hardware"]
    where = {
        "commit": (about["commit"] or "")[:12] + "+" * str(about["commit"]).endswith("+"),
        "hardware": ", ".join(hardware["gpus"]) or f"{hardware['cores']} x {hardware['cpu']}",
    }
    tell({HOST: where | {"torch": torch.__version__, "python": about["python"], "rehearsal": rehearse}})
    for name in json.loads(sys.stdin.readline() or "[]"):
        tell({"begin": name})
        begin, row = time.monotonic(), dict[str, Any](part=name)
        try:
            found = part(name)(place)
            row |= {"passed": True, "seen": found} if isinstance(found, str) else found
        except Left as reason:
            row["left"] = str(reason)
        except Failed as reason:
            row |= {"passed": False, "seen": str(reason)}
        except Exception as error:  # noqa: BLE001 - the next part may still say something
            row |= {"passed": False, "seen": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
        tell(row | {"seconds": round(time.monotonic() - begin, 1)})
        if not rehearse:
            torch.cuda.empty_cache()


def tell(row: dict[str, Any]) -> None:
    print(json.dumps(row), flush=True)


# ---- the one typed: starts workers, keeps rows


@contextmanager
def worker(options: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, str(Path(__file__).resolve()), "--worker", *options]
    env = os.environ | {"PYTHONPATH": os.pathsep.join([*sources(), os.environ.get("PYTHONPATH", "")]).strip(os.pathsep)}
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def heard(process: subprocess.Popen[str]) -> queue.Queue[str]:
    """What a worker says, line by line; an empty one at its end."""
    said: queue.Queue[str] = queue.Queue()

    def listen() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            said.put(line)
        said.put("")

    threading.Thread(target=listen, daemon=True).start()
    return said


def next_row(said: queue.Queue[str], patience: float) -> dict[str, Any] | None:
    """What a worker tells next; None where it has ended. queue.Empty where it says nothing for so many seconds."""
    while True:
        line = said.get(timeout=max(0.01, patience))
        if not line:
            return None
        if line.startswith("{"):  # libraries may print
            return dict(json.loads(line))


def run(
    names: list[str], options: Sequence[str], rows: Path, deadline: float, again: bool
) -> tuple[int, dict[str, Any]]:
    """These parts, or those of them that are not done yet; how many checks failed, and where. Rows come as they do."""
    failed, where = 0, dict[str, Any]()
    while True:
        under_way, why = "", ""
        with worker(options) as process:
            said = heard(process)
            try:
                first = next_row(said, START) or {"broken": "the worker ended before it began"}
                if "broken" in first:
                    raise SystemExit(first["broken"])
                if not where:
                    where = first[HOST]
                    names = [name for name in names if again or name not in done(rows, where)]
                if time.monotonic() >= deadline:
                    break
                assert process.stdin is not None
                process.stdin.write(json.dumps(names) + "\n")
                process.stdin.flush()
                while (row := next_row(said, min(LIMIT, deadline - time.monotonic()))) is not None:
                    if "begin" in row:
                        under_way = row["begin"]
                        continue
                    names, under_way = [name for name in names if name != under_way], ""
                    failed += keep(rows, row | where)
                why = f"ended its process with code {process.wait()}"
            except queue.Empty:
                why = f"took longer than {LIMIT:.0f} s"
        if time.monotonic() >= deadline or not names:
            break
        lost = under_way or names[0]
        names = [name for name in names if name != lost]
        failed += keep(rows, {"part": lost, "passed": False, "seen": why} | where)
    if names:
        print(f"the time was up; left for the next run: {', '.join(names)}", file=sys.stderr)
    return failed, where


def keep(rows: Path, row: dict[str, Any]) -> bool:
    """Append a row and say it; whether it is of a check that failed."""
    row["date"] = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    if row["rehearsal"] and rows.resolve() == ROWS:
        raise SystemExit(f"a rehearsal's rows never go to {ROWS.relative_to(ROOT)}: give another --out")
    rows.parent.mkdir(parents=True, exist_ok=True)
    with rows.open("a") as file:
        file.write(json.dumps(row) + "\n")
    print(f"{row['part']}: {shown(row)}", file=sys.stderr, flush=True)
    return row.get("passed") is False


def read(rows: Path) -> list[dict[str, Any]]:
    """The newest row of each part, card, commit and torch."""
    found = [json.loads(line) for line in rows.read_text().splitlines()] if rows.is_file() else []
    return list({tuple(row.get(name) for name in ("part", *SAME)): row for row in found}.values())


def shown(row: dict[str, Any]) -> str:
    """A row in a line."""
    if "left" in row:
        return f"left out: {row['left']}"
    if "passed" in row:
        return f"{'holds' if row['passed'] else 'FAILED'}: {row['seen']}"
    numbers = {name: value for name, value in row.items() if isinstance(value, float) and name != "seconds"}
    return ", ".join(f"{name} {value:,.1f}" for name, value in numbers.items())


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The newest rows of one place, as two tables: what holds, and what it takes beside its floor.

    >>> rows = [{"part": "triton", "passed": True, "seen": "exact", "hardware": "a card", "torch": "2.11", "commit": "abc"}]
    >>> print(table([*rows, {"part": "update x", "eager_ms": 30.0, "graph_ms": 10.0, "floor_ms": 5.0, "rehearsal": True}]))
    # On a card
    <BLANKLINE>
    A rehearsal on a CPU with stand-ins: its figures say nothing of a card.
    <BLANKLINE>
    a card, torch 2.11, commit abc
    <BLANKLINE>
    | check | | seen |
    |---|---|---|
    | triton | holds | exact |
    <BLANKLINE>
    | milliseconds of | plain | as a graph | floor | graph over floor | others |
    |---|---|---|---|---|---|
    | update x | 30.00 | 10.00 | 5.00 | 2.00 | |
    """
    out = ["# On a card", ""]
    if any(row.get("rehearsal") for row in rows):
        out += ["A rehearsal on a CPU with stand-ins: its figures say nothing of a card.", ""]
    first = rows[0] if rows else {}
    out += [f"{first.get('hardware')}, torch {first.get('torch')}, commit {first.get('commit')}", ""]
    out += ["| check | | seen |", "|---|---|---|"]
    for row in rows:
        if "left" in row:
            out.append(f"| {row['part']} | left out | {row['left']} |")
        elif "passed" in row:
            out.append(
                f"| {row['part']} | {'holds' if row['passed'] else 'FAILED'} | {row['seen']} |".replace("\n", " ")
            )
    out += [
        "",
        "| milliseconds of | plain | as a graph | floor | graph over floor | others |",
        "|---|---|---|---|---|---|",
    ]
    for row in (row for row in rows if "passed" not in row and "left" not in row):
        fast = row.get("graph_ms", row.get("round_ms"))
        numbers = [
            row.get("eager_ms"),
            fast,
            row.get("floor_ms"),
            fast and row.get("floor_ms") and fast / row["floor_ms"],
        ]
        others = PUBLISHED.get(row["part"], "")
        if "peer_ms" in row:
            others = f"r2dreamer {row['peer_ms']:.2f}"
        elif "steps_per_s" in row and not others:
            others = f"enough for {row['steps_per_s']:,.0f} steps a second"
        elif "updates_per_s" in row:
            others = f"{row['updates_per_s']:,.1f} updates and {row['actions_per_s']:,.0f} actions a second"
        cells = [f"{number:.2f}" if number else "" for number in numbers]
        out.append(f"| {row['part']} | {' | '.join([*cells, others])} |".replace("|  |", "| |"))
    return "\n".join(out).replace("|  |", "| |")


def main() -> None:
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--only", nargs="+", metavar="PART", default=[])
    ap.add_argument("--list", action="store_true")
    ap.add_argument("--rehearse", action="store_true")
    ap.add_argument("--r2dreamer", metavar="FOLDER")
    ap.add_argument("--minutes", type=float, default=9.0)
    ap.add_argument("--out", type=Path, help="the rows' file (docs/results/gpu.jsonl; of a rehearsal a temporary one)")
    ap.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    args = ap.parse_args()
    if args.worker:
        work(args.rehearse, args.r2dreamer)
        return
    if args.list:
        print("\n".join(NAMES))
        return
    names = [name for name in NAMES if not args.only or any(name.startswith(one) for one in args.only)]
    if not names:
        ap.error(f"no part begins with {' or '.join(args.only)}: --list tells them")
    rows = args.out or (Path(tempfile.mkdtemp(prefix="gpu-rehearsal-")) / "rows.jsonl" if args.rehearse else ROWS)
    if args.rehearse and rows.resolve() == ROWS:
        ap.error(f"a rehearsal's rows never go to {ROWS.relative_to(ROOT)}: give another --out")
    options = [*(["--rehearse"] if args.rehearse else []), *(["--r2dreamer", args.r2dreamer] if args.r2dreamer else [])]
    deadline = time.monotonic() + 60 * args.minutes - 15  # to end what is under way
    failed, where = run(names, options, rows, deadline, bool(args.only))
    here = {row["part"]: row for row in read(rows) if same(row, where)}
    page = table([here[name] for name in NAMES if name in here])
    print(page)
    if rows == ROWS and here:
        ROWS.with_suffix(".md").write_text(page + "\n")
    raise SystemExit(1 if failed else 0)


def same(row: dict[str, Any], where: dict[str, Any]) -> bool:
    """Whether a row is of this commit, torch and card."""
    return all(row.get(name) == where.get(name) for name in SAME)


def done(rows: Path, where: dict[str, Any]) -> set[str]:
    """Parts that need not be run again: a check that failed, or was left out, does."""
    here = [row for row in read(rows) if same(row, where)]
    return {row["part"] for row in here if row.get("passed") is not False and "left" not in row}


if __name__ == "__main__":
    main()
