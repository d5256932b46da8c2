"""What the heads of several journals say together: the run of all shards as one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_WORST_FIRST = ("failed", "running", "interrupted", "finished")
_SUMMED = ("inputs", "done", "faces", "without_face", "done_before", "failed", "left")


def joined(head: Mapping[str, Any], runs: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the head of a report together with those of the journals beside it.

    The newest run's counts. If that is a shard, the others of the same division count with it: ``state`` is the worst
    of theirs (``running`` where one has not begun), and ``summary`` their sum.

    Args:
        head: of the report itself; empty if there is none.
        runs: the last head in each journal.
    """
    if not runs:
        return dict(head)
    newest = max(runs.values(), key=lambda run: str(run["started"]))
    if "shard" not in newest:
        return dict(newest)
    count = str(newest["shard"]).partition("/")[2]
    parts: dict[str, Any] = {}
    before = head.get("shards")
    if isinstance(before, Mapping):
        parts.update((name, part) for name, part in before.items() if name.partition("/")[2] == count)
    for run in runs.values():
        if str(run.get("shard", "")).partition("/")[2] == count:
            parts[run["shard"]] = {key: run[key] for key in ("started", "state", "finished", "summary") if key in run}
    states = [part.get("state") for part in parts.values()]
    if str(len(parts)) != count:
        states.append("running")
    whole = {key: value for key, value in newest.items() if key not in ("shard", "state", "finished", "summary")}
    state = next((one for one in _WORST_FIRST if one in states), "running")
    ends = [part["finished"] for part in parts.values() if isinstance(part.get("finished"), str)]
    summaries = [part["summary"] for part in parts.values() if isinstance(part.get("summary"), Mapping)]
    summary: dict[str, Any] = {key: sum(_number(one.get(key)) for one in summaries) for key in _SUMMED}
    summary["seconds"] = max((_number(one.get("seconds")) for one in summaries), default=0)
    whole |= {"state": state, **({"finished": max(ends)} if ends else {}), "summary": summary}
    return whole | {"shards": dict(sorted(parts.items(), key=lambda one: _number(int(one[0].partition("/")[0]))))}


def _number(value: object) -> Any:
    return value if isinstance(value, int | float) else 0
