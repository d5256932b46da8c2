"""``--dry_run``: what a command would do, on stdout."""

from __future__ import annotations

from codeformer.cli.console import Console
from codeformer.cli.streams import emit
from codeformer.errors import ExitCode
from codeformer.files.atomic import shown
from codeformer.run.plan import Plan
from codeformer.run.record import naming


def show_plan(plan: Plan, console: Console) -> ExitCode:
    """Print what a run would do, and return the code that it would end with."""
    if not console.json:
        for name, value in plan.facts:
            emit(shown(f"{name}: {value}"))
    for one in plan.inputs:
        console.record(one.record())
        if one.error is not None:
            console.error(naming(one.path, one.error))
        elif not console.json:
            results = ", ".join(map(str, one.results))
            between = "is done already:" if one.done else "->"
            emit(shown(f"{one.path} {between} {results}{f' ({one.note})' if one.note else ''}"))
    count = {status: sum(one.status == status for one in plan.inputs) for status in ("to do", "done", "failed")}
    parts = [f"{count['to do']} of {len(plan.inputs)} would be {plan.did}"]
    parts += [f"{count['done']} done already"] if count["done"] else []
    parts += [f"{count['failed']} would fail"] if count["failed"] else []
    console.note(f"{', '.join(parts)}; nothing was written (--dry_run)")
    return plan.exit_code
