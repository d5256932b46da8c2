"""What a run says of itself as it goes: progress bar, scalars, sheets and validation."""

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor
from tqdm import tqdm

from codeformer.environment import summary_writer
from codeformer.train import checkpoint
from codeformer.train.networks import Files, Networks
from codeformer.train.processes import World
from codeformer.train.settings import Settings
from codeformer.train.sheets import Validation


class Reporter:
    """Progress bar, scalars, sheets and validation, on the first process."""

    def __init__(self, settings: Settings, out: Path, world: World, files: Files, first: int, quiet: bool) -> None:
        self.settings, self.out, self.main, self.quiet = settings, out, world.rank == 0, quiet
        self.scalars = _summary_writer(out, first) if self.main else None
        self.means: dict[str, list[float]] = {}
        self.validation = Validation(settings, files, world.device) if self.main and files.validation else None
        self.bar: tqdm[Any] | None = None
        self.clock, self.since = 0.0, first

    def start(self, step: int) -> None:
        """Begin the bar and the clock, when the first batch is there: loading networks and faces is not training."""
        if self.bar is None and self.main:
            total = self.settings.steps
            self.bar = tqdm(total=total, initial=step, unit="step", smoothing=0, disable=self.quiet)
            self.clock = time.monotonic()

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Stop the clock while something other than training is done."""
        began = time.monotonic()
        try:
            yield
        finally:
            spent = time.monotonic() - began
            self.clock += spent
            if self.bar is not None and not self.bar.disable:
                self.bar.start_t += spent

    def after(self, step: int, logs: Mapping[str, Tensor], networks: Networks, average: Mapping[str, Tensor]) -> None:
        """Report on a step that is done."""
        if self.bar is None:
            return
        self.bar.update()
        for name, value in logs.items():
            self.means.setdefault(name, []).append(float(value))
        done = step + 1
        if done % self.settings.log_every == 0 or done == self.settings.steps:
            means = {name: sum(values) / len(values) for name, values in self.means.items()}
            means["images/s"] = (done - self.since) * self.settings.batch_size / (time.monotonic() - self.clock)
            self.clock, self.since = time.monotonic(), done
            self.means = {}
            self.bar.set_postfix({name: f"{value:.4g}" for name, value in means.items()})
            checkpoint.append_scalars(self.out, done, means)
            self._write(done, means)
        due = {
            name: done % every == 0 or done == self.settings.steps
            for name, every in (("sheet", self.settings.sheet_every), ("validate", self.settings.validate_every))
        }
        if self.validation is not None and any(due.values()):
            with self.pause():
                sheet = self.out / "sheets" / f"{done:07d}.png" if due["sheet"] else None
                self._validated(done, self.validation(networks.net, average, sheet))

    def _validated(self, done: int, scores: Mapping[str, float]) -> None:
        checkpoint.append_scalars(self.out, done, scores)
        self._write(done, scores)
        if self.bar is not None and not self.bar.disable:
            self.bar.write(f"step {done}: {'  '.join(f'{k} {v:.4g}' for k, v in scores.items())}", file=sys.stderr)

    def _write(self, step: int, scalars: Mapping[str, float]) -> None:
        if self.scalars is not None:
            for name, value in scalars.items():
                self.scalars.add_scalar(name, value, step)

    def close(self) -> None:
        """End the bar and the scalars' file."""
        if self.bar is not None:
            self.bar.close()
        if self.scalars is not None:
            self.scalars.close()


def _summary_writer(out: Path, first: int) -> Any:
    """Return TensorBoard's writer where it is installed; it forgets what an earlier process wrote of later steps."""
    make = summary_writer()
    return None if make is None else make(str(out / "tensorboard"), purge_step=first + 1 if first else None)
