"""The commands that README and the documentation show: the program takes every word of them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from codeformer.cli.parser import parse

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def shown(page: Path) -> Iterator[str]:
    """Yield the lines of a page's blocks of code; those that are continued with a backslash as one."""
    for block in re.findall(r"^```[^\n]*\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S):
        yield from block.replace("\\\n", " ").splitlines()


def commands(page: Path) -> list[list[str]]:
    """Return the words behind ``codeformer`` of every command, up to a comment, a pipe or the next command."""
    found = []
    for line in shown(page):
        for words in re.findall(r"(?:^|[\s/=\"])codeformer ([a-z].*)", line):
            command = re.split(r"\s#|\s[|<>]|&&|;|\s2>|\"\s*$", words)[0]
            found.append(shlex.split(re.sub(r"\$\{?[A-Z_]+\}?", "0", command)))
    return [words for words in found if words[0] != "import"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_are_taken(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "restore.toml").write_text("")
    for words in commands(page):
        try:
            parse(words)
        except SystemExit as ended:
            assert ended.code == 0, f"codeformer {shlex.join(words)}"


def test_there_are_commands() -> None:
    counts = {page.name: len(commands(page)) for page in PAGES}
    assert counts["README.md"] > 10 and sum(counts.values()) > 60, counts


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_scripts_are_there(page: Path) -> None:
    theirs = ("scripts/download_pretrained_models.py", "scripts/crop_align_face.py")  # the published program's
    for name in re.findall(r"\bscripts/[\w/]+\.(?:py|sh)\b", page.read_text(encoding="utf-8")):
        assert name in theirs or (ROOT / name).is_file(), name
