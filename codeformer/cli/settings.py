"""``--config FILE`` and ``--save_config FILE``: the options of a command in a TOML file.

A file holds options by their long names, for any command at the top and for one command in a table of its name::

    device = "cuda:0"

    [restore]
    fidelity_weight = 0.7
    only_final = true

What stands on the command line wins.
"""

from __future__ import annotations

import argparse
import difflib
import json
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from codeformer.errors import InputError, UsageError
from codeformer.files.atomic import reason, shown, write_atomic
from codeformer.files.opening import read_regular

_OWN = ("config", "save_config", "help")
_LARGEST = 1 << 20  # bytes of a settings file


def words_of(
    file: Path, command: str, commands: Mapping[str, argparse.ArgumentParser], given: Sequence[str]
) -> list[str]:
    """Return a settings file's options as words of the command line.

    Args:
        file: the settings.
        command: whose options are asked for.
        commands: the parsers of all commands, by name.
        given: the words of the command line. Options that they have are left out, and so are those that an option of
            theirs excludes.

    Raises:
        InputError: the file cannot be read, or is no TOML.
        UsageError: it names an option that no command has, or gives it a value that none can have.
    """
    settings = _read(file)
    own, shared = settings.get(command, {}), {}
    for name, value in settings.items():
        if name in commands and isinstance(value, dict):
            continue
        shared[name.replace("-", "_")] = value
    if not isinstance(own, dict):
        raise UsageError(f"{shown(file)}: [{command}] is a table of options")
    options = _by_name(commands[command])
    everywhere = {name for parser in commands.values() for name in _by_name(parser)}
    words: list[str] = []
    excluded = set(_excluded(commands[command], given))
    for name, value in (shared | {key.replace("-", "_"): value for key, value in own.items()}).items():
        action = options.get(name)
        if action is None:
            if name in everywhere and name not in own:
                continue  # another command's, which shares the file
            near = difflib.get_close_matches(name, options, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise UsageError(f"{shown(file)}: codeformer {command} has no option {name}{hint}")
        if action not in excluded:
            words += _words(name, action, value, file)
    return words


def save(file: Path, command: str, parser: argparse.ArgumentParser, words: Sequence[str]) -> None:
    """Write the options among the words, which the parser has accepted, as a settings file. Raises OutputError."""
    raw = _raw(parser, words)
    lines = [f"# codeformer {command} --config {file.name}", f"[{command}]"]
    for name, action in _by_name(parser).items():
        value = getattr(raw, action.dest, None)
        if action.option_strings[-1] != f"--{name}" and len([o for o in action.option_strings if o[:2] == "--"]) > 1:
            continue  # one name is enough
        if action.nargs == 0:
            if value == action.const and value != action.default:
                lines.append(f"{name} = true")
        elif value not in (action.default, None, []):
            lines.append(f"{name} = {_toml(value)}")
    write_atomic(file, ("\n".join(lines) + "\n").encode())


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(read_regular(file, _LARGEST).decode("utf-8-sig"))
    except RecursionError as error:
        raise InputError(f"--config {shown(file)}: its tables and lists are nested too deeply") from error
    except (OSError, ValueError) as error:  # TOMLDecodeError is a ValueError
        raise InputError(f"--config {shown(file)}: {reason(error)}") from error


def _by_name(parser: argparse.ArgumentParser) -> dict[str, argparse.Action]:
    """Return the options of a parser by each of their long names, without the dashes."""
    return {
        name[2:]: action
        for action in parser._actions
        for name in action.option_strings
        if name.startswith("--") and name[2:] not in _OWN
    }


def _excluded(parser: argparse.ArgumentParser, given: Iterable[str]) -> Iterator[argparse.Action]:
    """Yield the options that the words have, and what excludes them; inputs that stand alone are ``--input_path``."""
    options = {name: action for action in parser._actions for name in action.option_strings}
    present = []
    for word in given:
        if word == "--":
            break
        name = word.partition("=")[0] if word.startswith("--") else word[:2]
        if word.startswith("-") and name in options:
            present.append(options[name])
    yield from present
    for group in parser._mutually_exclusive_groups:
        if any(action in present for action in group._group_actions):
            yield from group._group_actions
    if getattr(_raw(parser, given), "input_path", None):
        yield options["--input_path"]


def _raw(parser: argparse.ArgumentParser, words: Iterable[str]) -> argparse.Namespace:
    """Parse without reading the values: they stay the strings that they are. All inputs are ``input_path``'s."""
    before = [(action, action.type, action.choices, action.required) for action in parser._actions]
    try:
        for action in parser._actions:
            action.type, action.choices, action.required = None, None, False
        given = list(words)
        cut = given.index("--") if "--" in given else len(given)
        raw, unknown = parser.parse_known_args(given[:cut])
    finally:
        for action, kind, choices, required in before:
            action.type, action.choices, action.required = kind, choices, required
    if hasattr(raw, "paths"):
        raw.input_path = [*raw.input_path, *raw.paths, *unknown, *given[cut + 1 :]]
    return raw


def _words(name: str, action: argparse.Action, value: Any, file: Path) -> list[str]:
    if action.nargs == 0:
        if not isinstance(value, bool):
            raise UsageError(f"{shown(file)}: {name} is true or false")
        if not value and action.default is True and action.const is True:
            return [f"--no_{name}"]  # what is on by default has an option that switches it off
        return [f"--{name}"] if value else []
    values = value if isinstance(value, list) else [value]
    if any(isinstance(one, (bool, dict, list)) for one in values):
        raise UsageError(f"{shown(file)}: {name} takes a number or a text" + (", or a list of them" if value else ""))
    texts = [str(one) for one in values]
    if action.nargs in ("+", "*"):
        return [f"--{name}", *texts] if texts else []
    if len(texts) > 1 and not isinstance(action, argparse._AppendAction):
        raise UsageError(f"{shown(file)}: {name} takes one value")
    return [f"--{name}={text}" for text in texts]


def _toml(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    for read in (int, float):
        try:
            if str(read(value)) == value:
                return str(value)
        except ValueError:
            continue
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
