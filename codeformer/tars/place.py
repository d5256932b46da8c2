"""A run whose inputs are tar files, of which each makes one tar file of results."""

from __future__ import annotations

import pickle
import shutil
import tarfile
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from codeformer.errors import CodeFormerError, InputError, UsageError
from codeformer.files.atomic import reason, unwritable
from codeformer.files.opening import is_name_below
from codeformer.files.paths import same_file
from codeformer.files.spool import Spool
from codeformer.run.inputs import OUR_FOLDERS, Input, Listing, NamedInput, find_inputs
from codeformer.run.record import error_entry
from codeformer.run.report import Report
from codeformer.run.runner import Do, Pending
from codeformer.run.stored import Record
from codeformer.run.tally import Outcome
from codeformer.stores.remote import Remote
from codeformer.tars.packing import Packing, member_names
from codeformer.tars.reading import DamagedError, TarSample, samples

_STAGE = ".codeformer-tar-"  # begins the folders in which results wait until they are packed
_REPEATED = 10_000  # failures of one tar file that a later run repeats; if there are more, it tries them again


@dataclass(eq=False)
class _Shard:
    """A tar file that is worked on.

    Attributes:
        job: the input.
        waiting: samples in order, and whether an outcome will come for each.
        packing: the results, once there is anything to pack.
        outcomes: of its pictures, kept until the results are in their place; on the disk where they are many.
        read: whether all samples were read that can be.
        repeated: whether an earlier run's outcomes are repeated, and nothing is read.
        error: why reading ended early.
        without_picture: samples that have none.
        notes: lines for the user.
    """

    job: Pending
    waiting: deque[tuple[TarSample, bool]] = field(default_factory=deque)
    packing: Packing | None = None
    outcomes: Spool[Outcome] = field(default_factory=lambda: Spool(pickle.dumps, pickle.loads))
    read: bool = False
    repeated: bool = False
    error: CodeFormerError | None = None
    without_picture: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The name of the tar file of results."""
        return f"{self.job.item.stem}.tar"


class TarPlace(Remote):
    """Tar files among the inputs of a run, behind paths or URLs.

    The input of the run is the tar file: it has a record, by which a later run passes over it. Each picture in it
    becomes a job and has a record too. What was made of a tar file appears when all its samples are done.

    Args:
        folder: an empty folder for what is fetched, unpacked and made.
        output: the URL of the output folder; None for a folder on this machine.
        resume: whether what others made may not be replaced.
    """

    holds_many = True

    def __init__(self, folder: Path, output: str | None = None, *, resume: bool = True) -> None:
        super().__init__(folder, output)
        self._resume = resume
        self._shards: deque[_Shard] = deque()

    def find(self, paths: Any, *, recursive: bool, **kwargs: Any) -> Listing:
        """Return the tar files.

        Raises:
            CodeFormerError: none is there; one would be overwritten by its own results.
        """
        root: Path = kwargs["root"]
        output = self.outputs.url if self.outputs else None

        def stored(url: str) -> tuple[bool, Iterable[Input]]:
            if output is not None and f"{url}/".startswith(f"{output}/"):
                raise UsageError(f"{url}: lies in {output}, where the results go; give another --output_path")
            return self.inputs.find(url, False, None, frozenset({".tar"}))

        listing = find_inputs(paths, recursive=False, suffixes=frozenset({".tar"}), root=root, stored=stored)
        for one in listing.inputs:
            if same_file(root / one.path.name, one.path):
                raise UsageError(f"--output_path {root}: the results would overwrite the input {one.path}")
        return listing

    def with_versions(self, named: Iterable[NamedInput]) -> Iterator[NamedInput]:
        """Return the inputs with versions: a tar file is not read to find out whether it has changed."""
        for item in super().with_versions(named):
            version = item.version
            if "://" not in item.key:
                with suppress(OSError):
                    status = item.path.stat()
                    version = f"{status.st_size} {status.st_mtime_ns}"
            yield replace(item, version=version)

    def peek(self, job: Pending) -> CodeFormerError | None:
        """Return why an input is not a tar file, by its beginning."""
        path = job.item.path
        try:
            if (error := super().peek(job)) is not None or tarfile.is_tarfile(path):
                return error
        except OSError as error:
            return InputError(f"{path}: cannot be read ({reason(error)})")
        return InputError(f"{path}: is not a tar file")

    def whole(self, item: NamedInput) -> str:
        """Return the name of the one file that an input's results go into."""
        return f"{item.stem}.tar"

    def around(self, do: Do[Pending], report: Report) -> Do[Pending]:
        """Return what fetches tar files, does the work on their pictures, packs the results and uploads them."""
        return super().around(partial(self._unpacked, do, report), report)

    def _unpacked(self, do: Do[Pending], report: Report, jobs: Iterator[Pending]) -> Generator[Outcome, None, None]:
        """Do the work on all samples, and yield outcomes when their tar file is in its place."""
        try:
            with closing(do(self._samples(jobs, report))) as outcomes:
                for outcome in outcomes:
                    yield from self._finished(report)
                    self._settle(self._shards[0], outcome, report)
            yield from self._finished(report)
        finally:
            for shard in self._shards:
                if shard.packing is not None:
                    shard.packing.abandon()
                _sweep(report.root, shard.job.item.stem)
                for sample, _ in shard.waiting:
                    sample.close()
            self._shards.clear()
            if report.shard is None:  # else another process may be about to write into them
                for folder in OUR_FOLDERS:
                    with suppress(OSError):
                        (report.root / folder).rmdir()  # if nothing else is in it

    def _samples(self, jobs: Iterator[Pending], report: Report) -> Iterator[Pending]:
        """Yield a job for each picture in the tar files."""
        for job in jobs:
            shard = _Shard(job)
            self._shards.append(shard)
            known = report.known.get(job.item.key)
            _sweep(report.root, job.item.stem)
            if self._repeat(shard, report):
                continue
            target = report.root / shard.name
            made = {name for name, _ in known.outputs} if known else set()
            if self._resume and target.exists() and shard.name not in made:
                shard.error = UsageError(
                    f"{target} exists and is not a result of this input: choose another --output_path"
                )
                shard.read = True
                continue
            try:
                with closing(samples(job.item.path, partial(self._place, job))) as read:
                    for number, sample in enumerate(read):
                        todo = sample.path is not None and sample.error is None
                        shard.waiting.append((sample, todo))
                        if sample.path is not None and todo:
                            stem = f"{_STAGE}{job.item.stem}/{number:06d}"
                            key = f"{job.item.key}/{sample.picture}"
                            yield Pending(NamedInput(sample.path, stem, key), job.fingerprint)
            except InputError as error:
                shard.error = error
            except OSError as error:
                raise unwritable(self._folder, error) from error
            shard.read = True

    def _place(self, job: Pending, member: str) -> Path:
        return self.inputs.input_of(f"{job.item.key}/{member}", PurePosixPath()).path

    def _repeat(self, shard: _Shard, report: Report) -> bool:
        """Repeat the failures of an earlier run over the same bytes, where they would come again."""
        job = shard.job
        known = report.known.get(job.item.key)
        if not (self._resume and known and job.fingerprint):
            return False
        record = report.record(job.item.key) or {}
        again = record.get("again")
        complete = replace(known, status="").complete(report.root)
        if not (isinstance(again, dict) and again.get("fingerprint") == job.fingerprint and complete):
            return False
        for key in again.get("failed", ()):
            old = report.record(key)
            if old is not None and old.get("error"):
                path = self.inputs.input_of(key, PurePosixPath()).path
                why = InputError(str(old["error"]["message"]).removeprefix(f"{key}: "))
                shard.outcomes.append(Outcome(path, old, why, adds=1))
        if record.get("error"):
            shard.error = InputError(str(record["error"]["message"]))
        shard.notes.append("its failures are those of an earlier run on the same bytes; --overwrite tries again")
        shard.outcomes.append(self._told(shard, record))
        shard.repeated = True
        return True

    def _settle(self, shard: _Shard, outcome: Outcome, report: Report) -> None:
        """Pack what became of a picture, and keep its outcome."""
        self._pass_by(shard, report)
        sample, _ = shard.waiting.popleft()
        record: Record = dict(outcome.record or {})
        staged = str(record["name"])
        files = [one["path"] for one in record["outputs"]]
        own = f"{shard.job.item.stem}/{sample.key}"
        record |= {"name": own if is_name_below(own) else staged, "outputs": [], "shard": "", "members": []}
        warnings = outcome.warnings
        if outcome.error is None and files:
            named = member_names(sample.key, staged, files)
            packing = self._packing(shard, report)
            results = [(name, report.root / file) for name, file in zip(named, files, strict=True)]
            names, taken = packing.add(sample, results)
            sample.notes += [f"{name} is left out: a result has its name" for name in taken]
            record |= {"shard": shard.name, "members": names}
            for _, path in results:
                path.unlink(missing_ok=True)
        if sample.notes:
            warnings = (*warnings, *sample.notes)
            record["notes"] = [*record.get("notes", ()), *sample.notes]
        sample.close()
        shard.outcomes.append(replace(outcome, record=record, warnings=warnings, adds=1))

    def _pass_by(self, shard: _Shard, report: Report) -> None:
        """Settle samples that no outcome comes for: those without a picture, and those that are refused."""
        while shard.waiting and not shard.waiting[0][1]:
            sample, _ = shard.waiting.popleft()
            if sample.error is not None:
                key = f"{shard.job.item.key}/{sample.picture or sample.key}"
                path = self.inputs.input_of(key, PurePosixPath()).path
                record = {
                    "input": key,
                    "name": f"{shard.job.item.stem}/{sample.key}" if is_name_below(sample.key) else "",
                    "status": "failed",
                    "fingerprint": "",
                    "outputs": [],
                    "error": error_entry(path, sample.error),
                }
                shard.outcomes.append(Outcome(path, record, sample.error, adds=1))
            else:
                self._packing(shard, report).add(sample)
                shard.without_picture += 1
                shard.notes += sample.notes
            sample.close()

    def _packing(self, shard: _Shard, report: Report) -> Packing:
        if shard.packing is None:
            shard.packing = Packing(report.root / shard.name, report.root)
        return shard.packing

    def _finished(self, report: Report) -> Iterator[Outcome]:
        """Yield the outcomes of tar files of which everything is done, in order."""
        while self._shards:
            shard = self._shards[0]
            if shard.read:
                self._pass_by(shard, report)
                if shard.waiting:
                    return
                shard.outcomes.append(self._packed(shard, report))
            elif not shard.repeated:
                return
            self._shards.popleft()
            yield from shard.outcomes

    def _packed(self, shard: _Shard, report: Report) -> Outcome:
        """Give the results of a tar file their place, and return its own outcome."""
        job = shard.job
        known = report.known.get(job.item.key)
        outputs: list[dict[str, Any]] = []
        if shard.packing is not None:
            # Before it has its name, so that a file that a kill leaves is known as ours
            begun = {"input": job.item.key, "name": job.item.stem, "status": "failed", "fingerprint": ""}
            report.append({**begun, "outputs": [{"path": shard.name, "bytes": -1}]})
            packing, shard.packing = shard.packing, None
            outputs = [{"path": shard.name, "bytes": packing.finish()}]
        elif known and shard.error is None and (report.root / shard.name).exists():
            (report.root / shard.name).unlink()
            shard.notes.append(f"removed the earlier {shard.name}: its inputs give no result now")
        _sweep(report.root, job.item.stem)
        faceless, failed, again = 0, 0, shard.error is None or isinstance(shard.error, DamagedError)
        keys: list[str] = []
        for one in shard.outcomes:
            faceless += one.without_face
            if one.error is not None:
                failed += 1
                again = again and _is_in_the_bytes(one.error) and failed <= _REPEATED
                keys += [one.record["input"]] if again and one.record else []
        good = shard.error is None and not failed
        record: Record = {
            "input": job.item.key,
            "name": job.item.stem,
            "status": "packed" if good else "failed",
            "fingerprint": job.fingerprint if good else "",
            "outputs": outputs,
            "pictures": {
                "done": len(shard.outcomes) - failed - faceless,
                "without_face": faceless,
                "failed": failed,
            },
            "without_picture": shard.without_picture,
            "notes": shard.notes,
            "error": None if shard.error is None else error_entry(job.item.path, shard.error),
        }
        if not good and again and job.fingerprint:
            record["again"] = {"fingerprint": job.fingerprint, "failed": keys}
        replaced = bool(outputs) and known is not None and known.fingerprint not in ("", job.fingerprint)
        return replace(self._told(shard, record), replaced=replaced)

    @staticmethod
    def _told(shard: _Shard, record: Record) -> Outcome:
        """Return a tar file's outcome: its pictures are counted in its place, and its own error."""
        return Outcome(
            shard.job.item.path,
            record,
            shard.error,
            warnings=tuple(shard.notes),
            adds=0 if shard.error is not None else -1,
            counts=shard.error is not None,
        )


def _is_in_the_bytes(error: CodeFormerError) -> bool:
    """Return whether the same bytes fail in the same way, whatever is typed, installed or freed before the next run."""
    text = str(error)
    return isinstance(error, InputError) and "--" not in text and "pip install" not in text


def _sweep(root: Path, stem: str) -> None:
    """Remove results that wait to be packed, also those of a run that was killed."""
    for folder in (*OUR_FOLDERS, "."):
        shutil.rmtree(root / folder / f"{_STAGE}{stem}", ignore_errors=True)
