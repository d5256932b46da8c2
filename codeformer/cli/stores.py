"""URLs on the command line: what stands for them on this machine while a command works."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codeformer.cli.console import Console
from codeformer.cli.one_file import names_picture
from codeformer.errors import CodeFormerError, UsageError
from codeformer.files.urls import local_path, url_of
from codeformer.tars.names import expanded, is_tar

if TYPE_CHECKING:
    from codeformer.run.places import FilmPlace, Place

#: Changes a text so that it names URLs, not the files that stand for them.
Spoken = Callable[[str], str]


class StoresConsole(Console):
    """A console that names URLs, and not the files that stand for them."""

    def __init__(self, console: Console, spoken: Spoken) -> None:
        super().__init__(quiet=console.quiet, verbose=console.verbose, json=console.json)
        self._spoken = spoken

    def record(self, record: Mapping[str, Any]) -> None:
        """Print what became of an input."""
        from codeformer.stores.outputs import translated

        super().record(translated(record, self._spoken))

    def _write(self, message: str) -> None:
        super()._write(self._spoken(message))


def without_file_urls(args: argparse.Namespace) -> None:
    """Replace ``file:///`` URLs among inputs and output by their paths."""
    for name in ("input_path", "inputs", "output_path", "output", "folder", "input_list"):
        value = getattr(args, name, None)
        if isinstance(value, list):
            setattr(args, name, [local_path(one) for one in value])
        elif isinstance(value, Path):
            setattr(args, name, local_path(value))


@contextmanager
def places(
    args: argparse.Namespace,
    console: Console,
    *,
    inputs: str = "input_path",
    output: str = "output_path",
    tars: bool = False,
) -> Iterator[tuple[Place, Console, Spoken]]:
    """Yield where a command's inputs and results lie, a console, and what translates other texts.

    Where there are URLs, the output path among the arguments is replaced by a path of this machine. What lies there
    when the block ends is uploaded, also after an error.

    Args:
        args: the arguments.
        console: where the command speaks.
        inputs: the name of the inputs among the arguments.
        output: of the output path.
        tars: whether the command takes tar files.

    Raises:
        UsageError: URLs do not go with another option, or a package is missing.
        CodeFormerError: the store cannot be asked, or does not take the results.
    """
    from codeformer.run.places import HERE

    packed = _tars(args, inputs)
    if packed:
        _refuse_with_tars(args, getattr(args, inputs), takes_tars=tars)
    url = url_of(getattr(args, output) or Path())
    given = [one for one in getattr(args, inputs) if url_of(one)]
    if not (url or given or packed or getattr(args, "input_list", None)):
        yield HERE, console, str
        return
    if url or given:
        _refuse(args, url or str(url_of(given[0])))
    from codeformer.stores.remote import Remote

    with tempfile.TemporaryDirectory(prefix="codeformer-") as name:
        folder = Path(name)
        single = url if url and names_picture(Path(url)) and len(getattr(args, inputs)) == 1 else None
        if packed:
            from codeformer.tars.place import TarPlace

            remote: Remote = TarPlace(folder, url, resume=args.resume)
        else:
            remote = Remote(folder, None if single else url, alone=getattr(args, "engine", "process") == "process")
        if single:
            setattr(args, output, remote.single(single, may_replace=not args.resume))
        elif url:
            setattr(args, output, remote.mirror())
        if given and getattr(args, output) == Path("-"):
            setattr(args, inputs, [remote.fetched_now(one) for one in getattr(args, inputs)])
        try:
            yield remote, StoresConsole(console, remote.spoken), remote.spoken
        except CodeFormerError as error:
            if not getattr(args, "dry_run", False):
                with suppress(CodeFormerError):  # the run ends with the error that came first
                    remote.settle()
            raise type(error)(remote.spoken(str(error))) from error
        if not getattr(args, "dry_run", False):
            remote.settle()


@contextmanager
def film_places(args: argparse.Namespace, console: Console) -> Iterator[tuple[FilmPlace, list[Path], Console]]:
    """Yield where films and results lie, the paths of the films here, and a console.

    Where there are URLs, the output path among the arguments is replaced by a path of this machine.

    Raises:
        UsageError: URLs do not go with another option, or a package is missing.
        CodeFormerError: the store cannot be asked.
    """
    from codeformer.run.places import FILMS_HERE
    from codeformer.video.options import ENDINGS, films_in

    url = url_of(args.output_path or Path())
    given = [url_of(one) for one in args.input_path]
    if not (url or any(given)):
        yield FILMS_HERE, films_in(args.input_path), console
        return
    first = url or next(one for one in given if one)
    if args.dry_run or args.engine == "ray":
        flag = "--dry_run" if args.dry_run else "--engine ray"
        raise UsageError(f"{flag} needs films and results on this machine: leave {first} out")
    if url and (args.preview or args.preview_w):
        raise UsageError(f"--preview writes its pictures beside the film: give a folder of this machine, not {url}")
    if args.save_frames and (frames := url_of(args.save_frames)):
        raise UsageError(f"--save_frames {frames}: frames are written to this machine: give a folder here")
    from codeformer.stores.films import StoredFilms, kept_folder

    with (
        tempfile.TemporaryDirectory(prefix="codeformer-") as name,
        kept_folder(url) if url else nullcontext(Path(name)) as made,
    ):
        is_file = url is not None and Path(url).suffix.lower() in ENDINGS
        place = StoredFilms(Path(name) / "in", made, url.rpartition("/")[0] if url and is_file else url)
        if url:
            args.output_path = place.made / url.rpartition("/")[2] if is_file else place.made
        try:
            sources = [
                path
                for one, own in zip(args.input_path, given, strict=True)
                for path in (place.films_at(own) if own else films_in([one]))
            ]
            yield place, sources, StoresConsole(console, place.spoken)
        except CodeFormerError as error:
            raise type(error)(place.spoken(str(error))) from error


@contextmanager
def reports(args: argparse.Namespace) -> Iterator[tuple[Path, Spoken]]:
    """Yield a folder with the reports of an output folder, and what translates texts about it.

    Raises:
        CodeFormerError: the store cannot be asked, or does not take the joined report.
    """
    url = url_of(args.folder)
    if url is None:
        yield args.folder, str
        return
    from codeformer.stores.remote import Remote

    with tempfile.TemporaryDirectory(prefix="codeformer-") as name:
        remote = Remote(Path(name), url)
        folder = remote.mirror(files=False)
        try:
            yield folder, remote.spoken
        except CodeFormerError as error:
            raise type(error)(remote.spoken(str(error))) from error
        if args.format == "json":
            remote.settle()


def _tars(args: argparse.Namespace, inputs: str) -> bool:
    """Return whether there are tar files among the inputs; then their braces are replaced by the names they mean."""
    given: list[Path] = getattr(args, inputs)
    if not any(is_tar(one) for one in given):
        return False
    setattr(args, inputs, [path for one in given for path in expanded(one)])
    return True


def _refuse_with_tars(args: argparse.Namespace, given: Sequence[Path], *, takes_tars: bool) -> None:
    """Raise UsageError for what does not go with tar files."""
    first = next(one for one in given if is_tar(one))
    if not takes_tars:
        raise UsageError(f"{first}: this command takes no tar files: unpack them into a folder, and give that")
    if other := next((one for one in given if not is_tar(one)), None):
        raise UsageError(f"{first} and {other}: tar files and others go into two runs: start one for each")
    if (output := args.output_path) is not None and (output == Path("-") or names_picture(output)):
        raise UsageError(f"-o {output}: results of {first} are packed into a tar file: give a folder")
    for flag in ("watch", "input_list", "mask"):
        if getattr(args, flag, None):
            raise UsageError(f"--{flag} does not go with tar files such as {first}: leave it out, or unpack them")
    if getattr(args, "engine", "process") == "ray":
        raise UsageError(f"--engine ray takes no tar files such as {first}: start processes with --shard I/N")


def _refuse(args: argparse.Namespace, url: str) -> None:
    """Raise UsageError where an option needs files of this machine."""
    if getattr(args, "watch", False):
        raise UsageError(f"--watch needs folders of this machine: leave {url} out")
    if getattr(args, "engine", "process") == "ray":
        raise UsageError(f"--engine ray needs paths that all machines have: for {url} start processes with --shard I/N")
    if (mask := getattr(args, "mask", None)) is not None and url_of(mask):
        raise UsageError(f"--mask {url_of(mask)}: masks are read from this machine: copy them, and give the folder")
