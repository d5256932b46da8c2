"""A tar file of results, which is there whole or not at all."""

from __future__ import annotations

import tarfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO

from codeformer.files.atomic import replacing, unwritable
from codeformer.files.opening import open_regular
from codeformer.files.spool import SeenSet, packed_text
from codeformer.run.inputs import COMPARE, CROPPED, FINAL, MASKS, RESTORED
from codeformer.tars.reading import TarSample

#: What stands in a member's name for the folder that holds such a result elsewhere.
_FIELDS = {RESTORED: "restored", CROPPED: "cropped", COMPARE: "compare", MASKS: "damage"}


class Packing:
    """The tar file of one input's results, under its name when it is finished.

    Args:
        path: the file.
        root: the output folder, which it lies in.
    """

    def __init__(self, path: Path, root: Path) -> None:
        self.path = path
        self._stack = ExitStack()
        self._seen = SeenSet()
        try:
            file = self._stack.enter_context(replacing(path, below=root))
            self._tar = self._stack.enter_context(tarfile.open(fileobj=file, mode="w|"))  # noqa: SIM115
        except (OSError, ValueError) as error:
            raise unwritable(path, error) from error

    def add(self, sample: TarSample, results: Sequence[tuple[str, Path]] = ()) -> tuple[list[str], list[str]]:
        """Add a sample: its results, then its other members.

        Args:
            sample: what was read.
            results: names of members, and the files that are put there.

        Returns:
            The names of the results, and those of other members that a result has taken.

        Raises:
            OutputError: the tar file cannot be written.
        """
        names, taken = [], []
        try:
            for name, path in results:
                with open_regular(path) as file:
                    self._put(name, path.stat().st_size, sample.modified, file)
                self._seen.add(packed_text(name))
                names.append(name)
            data = sample.data() if sample.others else None
            for name, size, modified in sample.others:
                if data is None or not self._seen.add(packed_text(name)):
                    taken.append(name)
                    if data is not None:
                        data.seek(size, 1)
                    continue
                self._put(name, size, modified, data)
        except (OSError, ValueError) as error:
            raise unwritable(self.path, error) from error
        return names, taken

    def finish(self) -> int:
        """Give the file its name, and return its bytes. Raises OutputError."""
        try:
            self._stack.close()
            return self.path.stat().st_size
        except (OSError, ValueError) as error:
            raise unwritable(self.path, error) from error

    def abandon(self) -> None:
        """Remove what was written."""
        stop = _Abandoned()
        self._stack.__exit__(type(stop), stop, None)

    def _put(self, name: str, size: int, modified: float, data: IO[bytes]) -> None:
        member = tarfile.TarInfo(name)
        member.size, member.mtime, member.mode = size, int(modified), 0o644
        self._tar.addfile(member, data)
        self._tar.members.clear()  # type: ignore[attr-defined]  # else it remembers them all


def member_names(key: str, stem: str, outputs: Sequence[str]) -> list[str]:
    """Return the names that a sample's results have in a tar file.

    Args:
        key: the sample's.
        stem: what the results' names begin with, below their folders.
        outputs: the results' names below the output folder, as the report has them.
    """
    whole = FINAL if any(name.startswith(f"{FINAL}/") for name in outputs) else RESTORED
    names = []
    for name in outputs:
        folder, _, rest = name.partition(stem)
        field = _FIELDS.get(folder.rstrip("/"), "") if folder.rstrip("/") != whole else ""
        names.append(f"{key}.{field}{rest if field else rest.lstrip('._')}")
    return names


class _Abandoned(Exception):
    """Says to what is open that nothing is to be kept."""
