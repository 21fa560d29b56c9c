"""What methods reached over all tasks, from rows, run folders or score files, with intervals over seeds.

aggregate.py atari100k-dreamerv3.json.gz --normalise atari_human --since 390000   DreamerV3's table from its score files
aggregate.py docs/results/memory.jsonl                                           rows of a suite
aggregate.py storm.json DIAMOND.json --normalise atari_human --against storm     files of final scores; who is better

A score of a run is the mean over its last tenth, of a file of DreamerV3's kind with --since the mean over points from that
step on (of seeds that have one). Tasks that a method lacks are named, and every method is taken on the tasks that all have.
"""

from __future__ import annotations

import argparse
import functools
from pathlib import Path

from wm_suite import aggregate, exports, normalise
from wm_suite.errors import SuiteError
from wm_suite.export_command import gathered
from wm_suite.tables import key

STATISTICS = {
    "mean": aggregate.mean,
    "median": aggregate.median,
    "interquartile mean": aggregate.interquartile_mean,
    "optimality gap": aggregate.optimality_gap,
}


def scores(args: argparse.Namespace) -> dict[str, dict[str, list[float]]]:
    """method -> task -> the score of each seed. Raises SuiteError."""
    runs, notes = gathered(args.sources, args.score, mixed=args.mixed)
    print(*notes, sep="\n", end="\n" * bool(notes))
    found = dict(exports.by_method(runs))
    if args.since is not None:  # files of final scores have no curve, and keep those
        for name in dict.fromkeys(one.method for one in runs):
            found.setdefault(name, {}).update(
                exports.at_the_end([one for one in runs if one.method == name], args.since)
            )
    return found


def shared(found: dict[str, dict[str, list[float]]]) -> dict[str, dict[str, list[float]]]:
    """The tasks that all methods have, in one order. Raises SuiteError where there is none."""
    if not found:
        raise SuiteError("no run has a score")
    spelled = {method: {key(task): task for task in tasks} for method, tasks in found.items()}
    common = [one for one in next(iter(spelled.values())) if all(one in tasks for tasks in spelled.values())]
    for method, tasks in spelled.items():
        if left := [task for one, task in tasks.items() if one not in common]:
            print(f"{method}: left out, for not all methods have them: {', '.join(left)}")
    if not common:
        raise SuiteError(f"{', '.join(found)} have no task in common")
    return {method: {one: found[method][tasks[one]] for one in common} for method, tasks in spelled.items()}


def table(args: argparse.Namespace) -> list[str]:
    """Markdown: a line for each method."""
    found = shared(scores(args))
    if args.normalise:
        found = {method: normalise.every(tasks, args.normalise) for method, tasks in found.items()}
    names = list(STATISTICS) if args.normalise else ["mean", "median", "interquartile mean"]
    head = ["method", "tasks", "seeds", *names] + ([f"P(> {args.against})"] if args.against else [])
    if args.against and args.against not in found:
        raise SuiteError(f"there is no method {args.against!r}; there are {', '.join(found)}")
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for method, tasks in found.items():
        rows, numbers = list(tasks.values()), sorted({len(one) for one in tasks.values()})
        estimate = functools.partial(aggregate.estimate, repetitions=args.repetitions)
        cells = [method, str(len(rows)), " to ".join(map(str, dict.fromkeys((numbers[0], numbers[-1]))))]
        cells += [estimated(estimate(STATISTICS[name], rows), args.normalise) for name in names]
        if args.against:
            other = list(found[args.against].values())
            cells.append(
                ""
                if method == args.against
                else estimated(estimate(aggregate.probability_of_improvement, rows, other), "P")
            )
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def estimated(one: aggregate.Estimate, normalised: str) -> str:
    """With its interval where there is one.

    >>> estimated(aggregate.Estimate(0.5, 0.4, 0.61), "atari_human"), estimated(aggregate.Estimate(5.0, float("nan"), 9.0), "")
    ('0.500 (0.400 to 0.610)', '5')
    """
    form = "{:.3f}" if normalised else "{:.4g}"
    value, low, high = (form.format(float(number)) for number in (one.value, one.low, one.high))
    return value if "nan" in low else f"{value} ({low} to {high})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "sources", nargs="+", type=Path, help="rows (.jsonl), run folders, score files (.json, .json.gz)"
    )
    parser.add_argument("--normalise", default="", help="a table of random and reference scores, as atari_human")
    parser.add_argument("--since", type=float, help="of curves: the mean over points from this step on")
    parser.add_argument("--score", default="trained", help="of rows: the field that is the score")
    parser.add_argument("--against", help="a method: how probably a run of another is better than one of this")
    parser.add_argument("--repetitions", type=int, default=2000, help="of the stratified bootstrap over seeds")
    parser.add_argument("--mixed", action="store_true", help="take run folders of different protocols, marked")
    args = parser.parse_args()
    try:
        print(*table(args), sep="\n")
    except SuiteError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
