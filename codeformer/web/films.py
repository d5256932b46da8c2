"""Films as jobs: one after the other, each in a process of its own, with progress, cancelling and going on."""

from __future__ import annotations

import json
import secrets
import shutil
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from codeformer.errors import ExitCode
from codeformer.web.batches import BusyError
from codeformer.web.options import ServerOptions

State = Literal["waiting", "running", "done", "failed", "cancelled"]
_KEPT = 3600.0  # seconds that a job is kept after somebody asked for it last


@dataclass(eq=False)
class FilmJob:
    """One film.

    Attributes:
        key: what its owner knows it by; nobody guesses it.
        folder: holds its files.
        source: the upload.
        name: what its owner calls it; messages say that instead of paths.
        fields: the options, as they were given.
        photos: the files of the person who is wanted, and what their owner calls them.
        done, total: frames; a film that does not say how many it has gives 0.
    """

    key: str
    folder: Path
    source: Path
    name: str
    fields: dict[str, Any]
    state: State = "waiting"
    done: int = 0
    total: int = 0
    notes: list[str] = field(default_factory=list)
    error: str | None = None
    exit_code: int | None = None
    asked: float = field(default_factory=time.monotonic)
    _began: tuple[float, int] | None = None
    process: subprocess.Popen[str] | None = None
    interrupted: bool = False
    photos: dict[Path, str] = field(default_factory=dict)

    @property
    def output(self) -> Path:
        """Where the film goes."""
        return self.folder / "out" / f"film{self.ending}"

    @property
    def ending(self) -> str:
        """The ending of the film's name."""
        from codeformer.video.options import ENDINGS

        own = self.source.suffix.lower()
        return own if own in ENDINGS else ".mp4"

    @property
    def result(self) -> Path | None:
        """The finished film, or the ZIP of a preview's frames; None if there is none."""
        path = self.folder / "preview.zip" if self.fields.get("preview") else self.output
        return path if self.state == "done" and path.is_file() else None

    @property
    def frames(self) -> list[Path]:
        """A preview's frames, before and after side by side."""
        return sorted((self.folder / "out" / "film_preview").glob("*.png"))

    def speed(self) -> tuple[float, float | None]:
        """Return frames per second, and the seconds left where that is known."""
        if self.state != "running" or self._began is None:
            return 0.0, None
        start, before = self._began
        rate = (self.done - before) / max(time.monotonic() - start, 1e-6)
        return rate, (self.total - self.done) / rate if rate and self.total else None

    def describe(self, root_path: str = "") -> dict[str, Any]:
        """Return the job as JSON; ``root_path`` stands before the path of its result."""
        rate, left = self.speed()
        return {
            "id": self.key,
            "name": self.name,
            "state": self.state,
            "frames": self.done,
            "total": self.total,
            "frames_per_second": round(rate, 2),
            "seconds_left": None if left is None else round(left, 1),
            "notes": list(self.notes),
            "error": self.error,
            "exit_code": self.exit_code,
            "result": f"{root_path}/api/jobs/{self.key}/result" if self.result else None,
        }

    def hear(self, line: str) -> None:
        """Take in a line of the process."""
        try:
            said = json.loads(line)
        except ValueError:
            return
        if not isinstance(said, dict):  # what a library printed
            return
        if "done" in said:
            if self._began is None or said["done"] < self.done:
                self._began = (time.monotonic(), said["done"])
            self.done, self.total = said["done"], said["total"]
        if "note" in said and len(self.notes) < 50:
            self.notes.append(self.without_paths(said["note"]))
        if "error" in said:
            self.error = self.without_paths(said["error"])
        if "exit_code" in said:
            self.exit_code = said["exit_code"]

    def without_paths(self, text: str) -> str:
        """Return a message in its owner's words."""
        preview = self.output.parent / "film_preview"
        names = {self.source: self.name, preview: "the preview", self.output: "the result", **self.photos}
        names[self.folder] = ""
        for path, name in names.items():
            text = text.replace(str(path), name)
        return text

    def restart(self) -> None:
        """Forget how the last run ended."""
        self.state, self.error, self.exit_code, self._began = "waiting", None, None, None
        self.notes, self.interrupted = [], False


class Films:
    """All jobs, and the thread that works on them."""

    def __init__(self, root: Path, server: ServerOptions) -> None:
        """Start the thread; ``root`` is a folder of its own."""
        self._root, self._server = root, server
        self._jobs: dict[str, FilmJob] = {}
        self._changed = threading.Condition()
        self._open = True
        self._thread = threading.Thread(target=self._run, name="codeformer-films", daemon=True)
        self._thread.start()

    def new(self, name: str, ending: str, fields: dict[str, Any]) -> FilmJob:
        """Make a job whose upload is still to come; it does not run before :meth:`start`. Raises BusyError."""
        with self._changed:
            self._sweep()
            if len(self._jobs) >= self._server.queue:
                raise BusyError(f"{len(self._jobs)} films wait or are kept already; try again later")
            key = secrets.token_urlsafe(18)
            folder = self._root / secrets.token_hex(8)
            folder.mkdir(parents=True)
            job = FilmJob(key, folder, folder / f"upload{ending}", name, fields, state="cancelled")
            self._jobs[key] = job
            return job

    def start(self, job: FilmJob) -> None:
        """Let a job wait for its turn; one that was cancelled or failed goes on where it stopped."""
        with self._changed:
            if job.state in ("cancelled", "failed"):
                job.restart()
                self._changed.notify()

    def get(self, key: str) -> FilmJob | None:
        """Return a job."""
        with self._changed:
            self._sweep()
            job = self._jobs.get(key)
            if job is not None:
                job.asked = time.monotonic()
            return job

    def cancel(self, job: FilmJob) -> None:
        """Interrupt a job; what is finished of it stays for going on."""
        with self._changed:
            if job.state == "waiting":
                job.state = "cancelled"
            job.interrupted = True
            process = job.process
        if process is not None:
            _interrupt(process)

    def remove(self, job: FilmJob) -> None:
        """Cancel a job and delete all its files."""
        with self._changed:
            self._jobs.pop(job.key, None)
        self.cancel(job)
        process = job.process
        if process is not None:
            _end(process)
        shutil.rmtree(job.folder, ignore_errors=True)

    def close(self) -> None:
        """End: the film at hand is interrupted, and everything is deleted."""
        with self._changed:
            self._open = False
            self._changed.notify()
            jobs = list(self._jobs.values())
        for job in jobs:
            self.remove(job)
        self._thread.join(30)

    def _sweep(self) -> None:
        old = time.monotonic() - _KEPT
        for job in [j for j in self._jobs.values() if j.asked < old and j.state not in ("running", "waiting")]:
            del self._jobs[job.key]
            shutil.rmtree(job.folder, ignore_errors=True)

    def _run(self) -> None:
        while True:
            with self._changed:
                while self._open and not (waiting := [j for j in self._jobs.values() if j.state == "waiting"]):
                    self._changed.wait()
                if not self._open:
                    return
                job = waiting[0]
                job.state = "running"
            try:
                self._work(job)
            except Exception as error:
                job.error, job.state = f"the film's process could not be run ({type(error).__name__})", "failed"

    def _work(self, job: FilmJob) -> None:
        model = asdict(self._server.model)
        model["weights_dir"] = None if model["weights_dir"] is None else str(model["weights_dir"])
        asked = {
            "model": model,
            "detection_model": self._server.detection_model,
            "fields": job.fields,
            "source": str(job.source),
            "output": str(job.output),
        }
        command = [sys.executable, "-m", "codeformer.web.film_process"]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(json.dumps(asked) + "\n")
            process.stdin.flush()
            with self._changed:
                job.process = process
                if job.interrupted:  # before there was a process to interrupt
                    _interrupt(process)
            for line in process.stdout:
                job.hear(line)
            code = process.wait()
        finally:
            job.process = None
            _end(process)
            for pipe in (process.stdin, process.stdout):
                with suppress(OSError, ValueError):  # it may have been closed to interrupt the process
                    pipe.close()  # type: ignore[union-attr]
        if code in (0, int(ExitCode.SOME_FAILED)) and job.exit_code == code and job.error is None:
            if job.fields.get("preview"):
                shutil.make_archive(str(job.folder / "preview"), "zip", job.folder / "out" / "film_preview")
            job.state = "done"
        elif job.interrupted or job.exit_code == int(ExitCode.INTERRUPTED):
            job.error, job.exit_code = None, int(ExitCode.INTERRUPTED)
            job.state = "cancelled"
        else:
            if job.error is None:
                job.error = "the film's process was killed, perhaps for want of memory; it can go on where it stopped"
                job.exit_code = None
            job.state = "failed"


def _interrupt(process: subprocess.Popen[str]) -> None:
    """As Ctrl-C does: the process sees that its stdin ends."""
    if process.stdin is not None:
        with suppress(OSError, ValueError):
            process.stdin.close()


def _end(process: subprocess.Popen[str]) -> None:
    """See that a process is gone."""
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
