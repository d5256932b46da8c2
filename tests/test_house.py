"""The house stands as CONTRIBUTING says: who may import whom, without circles, and what is cheap stays cheap."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "codeformer"

#: What each part may import of the others. What stands at the top of the package is here too; "" is the package itself.
MAY_IMPORT: dict[str, set[str]] = {
    "version": set(),
    "errors": set(),
    "arrays": set(),
    "memory": set(),
    "extras": {"errors"},
    "environment": {"extras"},
    "device": {"errors"},
    "options": {"errors", "files"},
    "files": {"errors"},
    "hub": {"errors", "files", "version"},
    "images": {"arrays", "environment", "errors", "extras", "files"},
    "models": {"errors", "extras", "files", "hub"},
    "faces": {"arrays", "device", "environment", "errors", "extras", "files", "hub", "images", "models", "options"},
    "tasks": {"arrays", "errors", "faces", "files", "images"},
    "upsampling": {"arrays", "device", "environment", "errors", "extras", "faces", "files", "hub", "images", "models"},
    "backends": {
        *("arrays", "device", "environment", "errors", "export", "extras", "models", "options"),
        *("tasks", "version"),
    },
    "pipeline": {
        *("arrays", "backends", "device", "environment", "errors", "faces", "images", "models", "options"),
        *("scratches", "tasks", "upsampling"),
    },
    "scratches": {"arrays", "device", "hub"},
    "run": {
        *("arrays", "backends", "device", "environment", "errors", "extras", "faces", "files", "hub", "images"),
        *("models", "options", "pipeline", "tasks", "upsampling", "version"),
    },
    "stores": {"errors", "extras", "files", "images", "options", "run"},
    "tars": {"errors", "files", "images", "run", "stores"},
    "api": {
        "arrays",
        "backends",
        "errors",
        "faces",
        "files",
        "images",
        "models",
        "options",
        "pipeline",
        "run",
        "tasks",
    },
    "video": {
        "backends",
        *("arrays", "device", "environment", "errors", "extras", "faces", "files", "images", "models", "options"),
        *("pipeline", "run", "tasks", "train", "version"),
    },
    "train": {
        "backends",
        *(
            "arrays",
            "device",
            "environment",
            "errors",
            "extras",
            "faces",
            "files",
            "hub",
            "images",
            "models",
            "options",
        ),
        *("run", "tasks", "version"),
    },
    "web": {
        *("api", "arrays", "device", "environment", "errors", "extras", "faces", "files", "hub", "images", "models"),
        *("options", "pipeline", "run", "tasks", "upsampling", "video", "version", "cli"),
        "",
    },
    "cli": {
        "backends",
        *("api", "arrays", "device", "environment", "errors", "extras", "faces", "files", "hub", "images", "memory"),
        *(
            "models",
            "options",
            "pipeline",
            "run",
            "stores",
            "tars",
            "tasks",
            "train",
            "upsampling",
            "video",
            "version",
            "web",
            "export",
            "",
        ),
    },
    "export": {"environment", "errors", "extras", "files", "models", "tasks"},
    "__main__": {"cli"},
    "": {"api", "images", "version"},
}


def _modules() -> dict[str, Path]:
    found = {}
    for path in PACKAGE.rglob("*.py"):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        found[name.removesuffix(".__init__")] = path
    return found


def _imports(path: Path, modules: dict[str, Path]) -> set[str]:
    """The modules of the package that a file imports, inside functions too, but for type checking alone."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    unseen = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    found = set()
    for node in ast.walk(tree):
        if id(node) in unseen:
            continue
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("codeformer"):
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found.add(whole if whole in modules else str(node.module))
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name in modules}
    return found


MODULES = _modules()
GRAPH = {name: _imports(path, MODULES) - {name} for name, path in MODULES.items()}


def _part(module: str) -> str:
    return [*module.split("."), ""][1]


def test_every_part_is_in_the_table() -> None:
    assert {_part(name) for name in MODULES} <= set(MAY_IMPORT)


@pytest.mark.parametrize("part", sorted(MAY_IMPORT))
def test_nobody_imports_what_stands_above_it(part: str) -> None:
    for name, imported in GRAPH.items():
        if _part(name) == part:
            others = {_part(one) for one in imported} - {part}
            assert others <= MAY_IMPORT[part], f"{name} imports {sorted(others - MAY_IMPORT[part])}"


def test_no_module_imports_itself_by_a_detour() -> None:
    """Inside of functions, too: a circle that is hidden there is a circle."""
    done: set[str] = set()

    def visit(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, " -> ".join([*way[way.index(name) :], name])
        if name not in done:
            for other in sorted(GRAPH.get(name, ())):
                visit(other, (*way, name))
            done.add(name)

    for name in sorted(GRAPH):
        visit(name, ())


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from codeformer.cli import main; main(['restore', '--help']); "
        "print([m for m in ('torch', 'cv2', 'av', 'onnxruntime', 'PIL') if m in sys.modules], file=sys.stderr)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stderr.strip().splitlines()[-1] == "[]"


def test_no_module_is_larger_than_a_room() -> None:
    sizes = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in MODULES.items()}
    assert {name: size for name, size in sizes.items() if size > 450} == {}


def test_properties_hold_on_a_busy_machine_too() -> None:
    """No test asserts a time, which Hypothesis does by itself."""
    assert settings().deadline is None and HealthCheck.too_slow in settings().suppress_health_check


def test_no_two_classes_have_one_name() -> None:
    """A name that stands for two things has to be looked up; private ones (``_Worker``) belong to their module."""
    names: dict[str, list[str]] = {}
    for module, path in MODULES.items():
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                names.setdefault(node.name, []).append(module)
    assert {name: found for name, found in names.items() if len(found) > 1} == {}


def test_contributing_names_what_is_there() -> None:
    """The walks in CONTRIBUTING name files: each of them exists."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = {word.strip("`.,;:()") for word in text.split() if word.strip("`.,;:()").endswith(".py")}
    missing = [name for name in named if not any((base / name).is_file() for base in (ROOT, PACKAGE))]
    assert named and missing == []
