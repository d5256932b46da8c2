"""One film in a process of its own, so that neither a crash nor a cancelled run meets the server.

The server writes one line of JSON to stdin and keeps it open: when it closes, also because the server died, the run is
interrupted, as by Ctrl-C. On stdout comes one JSON object a line: messages, progress, and at last how it ended.
"""

from __future__ import annotations

import _thread
import json
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

_PAUSE = 0.2  # seconds between two lines of progress


class Lines:
    """A listener of a run that prints JSON."""

    def __init__(self) -> None:
        """Say nothing yet."""
        self._done = self._total = 0
        self._said = 0.0

    def error(self, message: str) -> None:
        """Something failed."""
        say(note=message)

    warning = note = error

    def detail(self, message: str) -> None:
        """Leave it out."""

    def record(self, record: Mapping[str, Any]) -> None:
        """Leave it out."""

    @contextmanager
    def progress(self, total: int, unit: str = "picture") -> Iterator[Lines]:
        """Count what is done."""
        self._done, self._total = 0, total
        say(done=0, total=total)
        yield self
        say(done=self._done, total=self._total)

    def update(self, n: float = 1) -> None:
        """Count on, and say so from time to time."""
        self._done += int(n)
        if time.monotonic() - self._said > _PAUSE:
            self._said = time.monotonic()
            say(done=self._done, total=self._total)

    def set_postfix_str(self, s: str = "", refresh: bool = True) -> None:
        """Leave it out."""


def say(**values: Any) -> None:
    """Print one object."""
    print(json.dumps(values), flush=True)


def main() -> int:
    """Restore the film that stdin names; return the exit code."""
    asked = json.loads(sys.stdin.readline())

    def wait() -> None:
        sys.stdin.read()
        _thread.interrupt_main()

    threading.Thread(target=wait, daemon=True).start()
    try:
        code = _restore(asked)
    except KeyboardInterrupt:
        code = 130
    say(exit_code=code)
    return code


def _restore(asked: dict[str, Any]) -> int:
    from codeformer.environment import prepare_process

    prepare_process()
    from codeformer.cli.failures import explain
    from codeformer.models.file import find_model
    from codeformer.options import ModelOptions
    from codeformer.tasks.table import TASKS
    from codeformer.video.film import run_film
    from codeformer.web.options import ServerOptions, film_options

    try:
        folder = asked["model"].pop("weights_dir")
        model_options = ModelOptions(**asked["model"], weights_dir=None if folder is None else Path(folder))
        server = ServerOptions(model=model_options, detection_model=asked["detection_model"])
        task = TASKS["restore"]
        options = film_options(asked["fields"], task, server, Path(asked["source"]), Path(asked["output"]))
        model = find_model(server.model.model, task, server.model.weights_dir)
        w = model.choose_w(task, None if options.w_by_model else options.work.w)
        return int(run_film(replace(options, work=replace(options.work, w=w)), Lines(), model=model))
    except Exception as error:
        text, code = explain(error)
        say(error=text)
        return int(code)


if __name__ == "__main__":
    sys.exit(main())
