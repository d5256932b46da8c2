"""``python -m tests.faults [FAMILY ...]``: faults over the command line, and a table of what held and what was lost."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.faults.place import Place, Trial
from tests.faults.trials import FAMILIES


def table(trials: list[Trial]) -> str:
    """Return the summary: tried, held, lost, by family."""
    lines = [f"{'family':<12}{'tried':>7}{'held':>7}{'lost':>7}"]
    families = list(dict.fromkeys(trial.family for trial in trials))
    for name in (*families, "all"):
        own = [trial for trial in trials if name in (trial.family, "all")]
        lost = sum(bool(trial.lost) for trial in own)
        lines.append(f"{name:<12}{len(own):>7}{len(own) - lost:>7}{lost:>7}")
    return "\n".join(lines)


def main() -> int:
    """Try the families that were asked for, and print each trial that was lost and the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("family", nargs="*", metavar="FAMILY", help=f"default: all of {', '.join(FAMILIES)}")
    parser.add_argument("--rounds", type=int, default=3, help="how often what is random is tried (default: 3)")
    parser.add_argument("--seed", type=int, default=0, help="what is random follows from it (default: 0)")
    args = parser.parse_args()
    if unknown := set(args.family) - set(FAMILIES):
        parser.error(f"no such family: {', '.join(sorted(unknown))}")
    trials: list[Trial] = []
    with tempfile.TemporaryDirectory(prefix="faults") as folder:
        place = Place(Path(folder), args.seed)
        for name in args.family or FAMILIES:
            for trial in FAMILIES[name](place, args.rounds):
                trials.append(trial)
                if trial.lost:
                    print(f"lost: {trial.family}: {trial.what}: {trial.lost}", file=sys.stderr, flush=True)
    print(table(trials))
    return int(any(trial.lost for trial in trials))


if __name__ == "__main__":
    raise SystemExit(main())
