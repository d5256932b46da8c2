"""``codeformer report``: one report of what the journals of a folder hold, as JSON, as a table or as CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from codeformer.errors import InputError, OutputError
from codeformer.files.lock import is_held
from codeformer.files.paths import is_folder
from codeformer.run.journal import busy, journal_name, journals_of
from codeformer.run.report import Earlier, Report, look, write_report
from codeformer.run.stored import Record

#: The reports that runs keep: of restore, colorize and inpaint, of upscale, and of align.
REPORTS = ("results.json", "upscale.json", "align.json")
_COLUMNS = ("input", "name", "status", "faces", "width", "height", "seconds", "outputs", "error", "exit_code")
_WIDTHS = (12, 5)  # of status and faces in the table


def reports_in(root: Path) -> list[str]:
    """Return the names of the reports of which the folder holds anything. Raises InputError if there is none."""
    if not is_folder(root):
        raise InputError(f"{root}: no such folder; give the folder that a run has written into")
    found = [name for name in REPORTS if (root / name).is_file() or journals_of(root, name)]
    if not found:
        raise InputError(f"{root}: holds no report; give the folder that a run has written into (its -o)")
    return found


def join(root: Path, name: str) -> tuple[dict[str, Any], int]:
    """Merge a report's journals into it; return its head, and how many inputs it has.

    While shards work, their journals stay, and the report tells what they have done so far.

    Raises:
        OutputError: an ordinary run is writing, which makes the report itself; or the report cannot be written.
    """
    if is_held(root / journal_name(name)):
        raise busy(root, journal_name(name))
    if any(is_held(root / own) for own in journals_of(root, name)):
        earlier = look(root, name)
        if earlier.odd:
            raise OutputError(f"{root / name}: is damaged; join it when the shards have ended")
        head = _head(earlier)
        write_report(earlier, head)
        return head, len(earlier.known)
    with Report(root, name) as report:
        head = _head(report)
        report.merge(head)
        report.drop_journals()
        return head, len(report.known)


def _head(earlier: Earlier) -> dict[str, Any]:
    return {key: value for key, value in earlier.head().items() if key not in ("format", "inputs")}


def as_csv(root: Path, name: str) -> Iterator[str]:
    """Yield the lines of a report as CSV (RFC 4180), the header first; nothing is written. Raises OutputError."""
    yield _csv_line(_COLUMNS)
    for record in look(root, name).records():
        yield _csv_line(_row(record))


def as_table(root: Path, name: str) -> Iterator[str]:
    """Yield the lines of a report as a table for reading, its counts last; nothing is written. Raises OutputError."""
    earlier = look(root, name)
    yield f"{'status':<{_WIDTHS[0]}}  {'faces':>{_WIDTHS[1]}}  input"
    for record in earlier.records():
        row = dict(zip(_COLUMNS, _row(record), strict=True))
        why = f"  ({row['error']})" if row["error"] else ""
        yield f"{row['status']:<{_WIDTHS[0]}}  {row['faces']!s:>{_WIDTHS[1]}}  {row['input']}{why}"
    head = earlier.head()
    summary = head.get("summary")
    counts = ", ".join(f"{key} {value}" for key, value in summary.items()) if isinstance(summary, dict) else ""
    yield f"{len(earlier.known)} inputs; the last run: {head.get('state', 'unknown')}" + (
        f", {counts}" if counts else ""
    )


def _row(record: Record) -> list[Any]:
    """Return a record as the columns have it; what another kind of run does not note is empty."""
    size, error = record.get("output_size") or ["", ""], record.get("error") or {}
    faces, seconds = record.get("faces"), record.get("seconds")
    done = [one for one in faces or () if one.get("chosen") or one.get("status") == "kept"]
    return [
        record["input"],
        record["name"],
        record["status"],
        "" if faces is None else len(done),
        *size,
        round(sum(seconds.values()), 4) if isinstance(seconds, dict) else "",
        json.dumps([one["path"] for one in record["outputs"]], ensure_ascii=False),
        error.get("message", ""),
        error.get("exit_code", ""),
    ]


def _csv_line(row: Any) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(row)
    return text.getvalue()
