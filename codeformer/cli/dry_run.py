"""``--dry_run``: what a command would do, on stdout."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from codeformer.cli.console import Console
from codeformer.cli.streams import emit
from codeformer.errors import ExitCode
from codeformer.files.atomic import shown
from codeformer.run.plan import Plan
from codeformer.run.record import naming
from codeformer.run.tally import Outcome, Tally


def show_plan(plan: Plan, console: Console, spoken: Callable[[str], str] = str) -> ExitCode:
    """Print what a run would do, each input as it is looked at, and return the code that it would end with.

    Args:
        plan: what it would do.
        console: where errors and the counts go.
        spoken: changes what is said, such as the names of files that stand for URLs.

    Raises:
        CodeFormerError: the run would end with it.
    """

    def show(facts: Iterable[tuple[str, str]]) -> None:
        for name, value in facts if not console.json else ():
            emit(shown(spoken(f"{name}: {value}")))

    show(plan.facts)
    tally, count = Tally(0), Counter[str]()
    for one in plan.inputs:
        if not one.done and count["done"] == count.total():
            show(plan.more_facts())
        count[one.status] += 1
        if one.done:
            tally.done_before += 1
        else:
            tally.count(Outcome(one.path, error=one.error))
        console.record(one.record())
        if one.error is not None:
            console.error(naming(one.path, one.error))
        elif not console.json:
            results = ", ".join(map(str, one.results))
            between = "is done already:" if one.done else "->"
            emit(shown(spoken(f"{one.path} {between} {results}{f' ({one.note})' if one.note else ''}")))
    parts = [f"{count['to do']} of {count.total()} would be {plan.did}"]
    parts += [f"{count['done']} done already"] if count["done"] else []
    parts += [f"{count['failed']} would fail"] if count["failed"] else []
    console.note(f"{', '.join(parts)}; nothing was written (--dry_run)")
    return tally.exit_code
