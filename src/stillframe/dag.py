"""Which code each stage runs, from the imports; DVC itself does not see what a stage imports.

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
from pathlib import Path
from typing import TYPE_CHECKING

from stillframe.paths import fresh_folder, write_json

if TYPE_CHECKING:
    from grimp import ImportGraph

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


def code_deps(graph: ImportGraph, module: str, sources: Path) -> list[Path]:
    """The files of the package that decide what the stage `module` does, sorted; [] when it does not exist yet."""
    files = {module_file(name, sources) for name in closure(graph, module)}
    files = {path for path in files if path.name != "__init__.py" or not does_nothing(path)}
    texts = [path.read_text(encoding="utf-8") for path in files]
    waiting = other_files(module.split(".")[0], sources)
    while named := [path for path in waiting if any(path.name in text for text in texts)]:
        files |= set(named)  # a template may name further files
        texts = [path.read_text(encoding="utf-8", errors="ignore") for path in named]
        waiting = [path for path in waiting if path not in named]
    return sorted(files)


def digests(sources: Path, stages: str = "stages") -> dict[str, dict[str, str]]:
    """By stage: the sha256 of each file of the package that decides what it does, by its path beside the package.

    Args:
        sources: folder of the package, importable by its name; `src/stillframe`.
        stages: the package in it whose modules are the stages.

    Raises:
        FileNotFoundError: no such folder. ValueError: a module does not parse.
    """
    if not (sources / stages).is_dir():
        raise FileNotFoundError(f"{sources / stages} is not there: run this in the root of the repository")
    package, graph = sources.name, import_graph(sources.name)
    names = sorted(path.stem for path in (sources / stages).glob("*.py") if path.stem != "__init__")
    found = {name: code_deps(graph, f"{package}.{stages}.{name}", sources.parent) for name in names}
    return {
        name: {
            path.relative_to(sources.parent).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files
        }
        for name, files in found.items()
    }


def write(sources: Path, code: Path) -> None:
    """Write `digests` into the folder `code`, one JSON file a stage: what dvc.yaml names in place of the files."""
    fresh_folder(code)
    for name, files in digests(sources).items():
        write_json(code / f"{name}.json", files)
