"""Which code each stage runs, from the imports; DVC itself does not see what a stage imports.

Tasks are imported by name while a stage runs (`tasks.find_task`), so their code is added here: of the selected task the
parts that the stage's modules read (`task.learning`, `task.evaluation`, ...), and of no other task anything.

The stage `compose` writes one file a stage, with the digest of the stage's own module, of every module of the package
that it reaches by imports (those inside functions too, those for type checking only not), and of the other files
(templates, style sheets) whose names those modules mention. In dvc.yaml that file is the stage's only dependency on
code: an edited helper re-runs the stages that import it, and no list of files is kept by hand.

A package's `__init__.py` is left out while it holds only a docstring and dunder constants: `__version__` must not
train every model anew.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from stillframe.paths import fresh_folder, write_json

if TYPE_CHECKING:
    from grimp import ImportGraph

PARTS = ("target", "learning", "evaluation", "output")  # of a task, as `tasks.base` has them
NOT_READ = {"py.typed"}  # files of the package that no module reads


def import_graph(package: str) -> ImportGraph:
    """The static import graph of an importable package.

    Raises:
        ValueError: a module does not parse.
    """
    import grimp
    from grimp.exceptions import SourceSyntaxError

    try:
        return grimp.build_graph(package, exclude_type_checking_imports=True, cache_dir=None)
    except SourceSyntaxError as error:
        raise ValueError(f"{error.filename}:{error.lineno} does not parse: {error.text}") from None


def closure(graph: ImportGraph, module: str) -> set[str]:
    """All modules that run when `module` does: what it imports, and the packages these lie in."""
    found: set[str] = set()
    waiting = {module}
    while waiting:
        name = waiting.pop()
        if name in found or name not in graph.modules:
            continue
        found.add(name)
        waiting |= graph.find_modules_directly_imported_by(name)
        if "." in name:
            waiting.add(name.rpartition(".")[0])
    return found


def module_file(module: str, sources: Path) -> Path:
    """The file of a module: `a/b.py`, or `a/b/__init__.py` of a package."""
    path = sources.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def does_nothing(init: Path) -> bool:
    """Whether an `__init__.py` holds only a docstring and dunder constants."""
    for node in ast.parse(init.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            continue
        names = node.targets if isinstance(node, ast.Assign) else []
        if names and all(isinstance(name, ast.Name) and name.id.startswith("__") for name in names):
            continue
        return False
    return True


def other_files(package: str, sources: Path) -> list[Path]:
    """Files of the package that are not Python: templates, style sheets."""
    folder = sources / package
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc") and path.name not in NOT_READ
    )


def code_deps(graph: ImportGraph, module: str, sources: Path, task: str | None = None) -> list[Path]:
    """The files of the package that decide what the stage `module` does, sorted; [] when it does not exist yet."""
    modules = closure(graph, module)
    if task and f"{module.split('.')[0]}.tasks" in modules:
        read = parts_read(module_file(name, sources) for name in modules)
        modules |= task_modules(graph, task, sorted(read))
    files = {module_file(name, sources) for name in modules}
    files = {path for path in files if path.name != "__init__.py" or not does_nothing(path)}
    texts = [path.read_text(encoding="utf-8") for path in files]
    waiting = other_files(module.split(".")[0], sources)
    while named := [path for path in waiting if any(path.name in text for text in texts)]:
        files |= set(named)  # a template may name further files
        texts = [path.read_text(encoding="utf-8", errors="ignore") for path in named]
        waiting = [path for path in waiting if path not in named]
    return sorted(files)


def parts_read(files: Iterable[Path]) -> set[str]:
    """The parts of a task that these modules read: attributes of that name of a variable or attribute `task`."""
    found = set()
    for path in files:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and node.attr in PARTS:
                owner = ast.unparse(node.value)
                if owner.rpartition(".")[2] == "task" or owner.startswith("find_task("):
                    found.add(node.attr)
    return found


def task_modules(graph: ImportGraph, task: str, parts: Iterable[str]) -> set[str]:
    """All modules that run when these parts of a task do; `task` is the dotted name of its folder."""
    return {name for part in ("", *parts) for name in closure(graph, f"{task}.{part}".rstrip("."))}


def digests(sources: Path, stages: str = "stages", *, task: str | None = None) -> dict[str, dict[str, str]]:
    """By stage: the sha256 of each file of the package that decides what it does, by its path beside the package.

    Args:
        sources: folder of the package, importable by its name; `src/stillframe`.
        stages: the package in it whose modules are the stages.
        task: dotted name of the selected task's folder, e.g. `stillframe.tasks.classification`; None: no task's code.

    Raises:
        FileNotFoundError: no such folder. ValueError: a module does not parse.
    """
    if not (sources / stages).is_dir():
        raise FileNotFoundError(f"{sources / stages} is not there: run this in the root of the repository")
    package, graph = sources.name, import_graph(sources.name)
    names = sorted(path.stem for path in (sources / stages).glob("*.py") if path.stem != "__init__")
    found = {name: code_deps(graph, f"{package}.{stages}.{name}", sources.parent, task) for name in names}
    return {
        name: {
            path.relative_to(sources.parent).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files
        }
        for name, files in found.items()
    }


def write(sources: Path, code: Path, task: str | None = None) -> None:
    """Write `digests` into the folder `code`, one JSON file a stage: what dvc.yaml names in place of the files."""
    fresh_folder(code)
    for name, files in digests(sources, task=task).items():
        write_json(code / f"{name}.json", files)
