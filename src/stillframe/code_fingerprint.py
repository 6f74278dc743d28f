"""Which files of the package decide what a stage does, found by its imports; DVC itself does not see imports.

A list of code here is the closure of some modules: they, every module of the package that they reach by imports (those
inside functions too, those for type checking only not), and the other files (templates, style sheets) whose names these
modules mention. Tasks are imported by name while a stage runs (`tasks.find_task`), so their code is added: of the
selected task the parts that the modules read (`task.learning`, `task.evaluation`, ...), of other tasks nothing.

- The stage `compose` writes one file a stage with the digests of its closure (`write`). In dvc.yaml that file is the
  stage's only dependency on code: an edited helper re-runs the stages that import it.
- What else depends on code (the cache of decoded chunks, the state of an interrupted training, the files beside a model
  of MLflow's) takes the same closure of the installed package from `closure_files` or `code_digest`.

A package's `__init__.py` is left out while it holds only a docstring and dunder constants: `__version__` must not
train every model anew.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from stillframe.paths import fresh_folder, write_json

if TYPE_CHECKING:
    from grimp import ImportGraph

INSTALLED = Path(__file__).parent  # the package's own folder
NOT_READ = {"py.typed", "README.md"}  # files of the package that no module reads


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


installed_graph = cache(import_graph)  # 0.2 s; a process runs one version of the code


def module_closure(graph: ImportGraph, modules: Iterable[str]) -> set[str]:
    """All modules that run when `modules` do: what they import, and the packages these lie in."""
    closure: set[str] = set()
    waiting = set(modules)
    while waiting:
        name = waiting.pop()
        if name in closure or name not in graph.modules:
            continue
        closure.add(name)
        waiting |= graph.find_modules_directly_imported_by(name)
        if "." in name:
            waiting.add(name.rpartition(".")[0])
    return closure


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


@cache  # by the text: all stages share most of their modules, and to parse one takes 10 ms
def attributes_of_task(source: str) -> frozenset[str]:
    """The attributes that a module of this source reads of a task.

    A task is what is named `task` (a variable, parameter or attribute), what is annotated `Task`, and what `find_task`
    returns, under whatever name.
    """
    if "task" not in source.lower():
        return frozenset()
    nodes = list(ast.walk(ast.parse(source)))
    owners = {"task"}
    for node in nodes:
        if isinstance(node, ast.Assign) and ast.unparse(node.value).startswith("find_task("):
            owners |= {ast.unparse(name).rpartition(".")[2] for name in node.targets}
        elif isinstance(node, ast.arg) and node.annotation and ast.unparse(node.annotation) == "Task":
            owners.add(node.arg)
        elif isinstance(node, ast.AnnAssign) and ast.unparse(node.annotation) == "Task":
            owners.add(ast.unparse(node.target).rpartition(".")[2])
    reads = [(ast.unparse(node.value), node.attr) for node in nodes if isinstance(node, ast.Attribute)]
    own = (name for owner, name in reads if owner.rpartition(".")[2] in owners or owner.startswith("find_task("))
    return frozenset(own)


def other_files(package: Path) -> list[Path]:
    """Files of the package that are not Python: templates, style sheets."""
    paths = sorted(package.rglob("*"))
    return [p for p in paths if p.is_file() and p.suffix not in (".py", ".pyc") and p.name not in NOT_READ]


def code_files(graph: ImportGraph, modules: Iterable[str], package: Path, task: str | None = None) -> list[Path]:
    """The files of the package that decide what these modules do, sorted; a module that is not there has none.

    Args:
        graph: imports of the package.
        modules: dotted names.
        package: folder of the package; `src/stillframe`.
        task: dotted name of the selected task's folder; None: no task's code.
    """
    names = module_closure(graph, modules)

    # Of the task: its `TASK`, and the parts that are read. A part may read another one, hence the loop.
    added = {task} if task and f"{package.name}.tasks" in names else set()
    while added - names:
        names |= module_closure(graph, added)
        sources = (module_file(name, package.parent).read_text(encoding="utf-8") for name in names)
        read = {part for source in sources for part in attributes_of_task(source)}
        added = {f"{task}.{part}" for part in read} & graph.modules
    files = {module_file(name, package.parent) for name in names}
    files = {path for path in files if path.name != "__init__.py" or not does_nothing(path)}

    # Templates that these modules name, and further files that the templates name.
    texts = [path.read_text(encoding="utf-8") for path in files]
    waiting = other_files(package)
    while named := [path for path in waiting if any(path.name in text for text in texts)]:
        files |= set(named)
        texts = [path.read_text(encoding="utf-8", errors="ignore") for path in named]
        waiting = [path for path in waiting if path not in named]
    return sorted(files)


def closure_files(modules: Iterable[str], *, task: str | None = None) -> list[Path]:
    """The files of the installed package that decide what these modules do, sorted.

    Args:
        modules: dotted names, e.g. `["stillframe.ingest.chunks"]`.
        task: the selected task's `Task.module`; None: no task's code.
    """
    return code_files(installed_graph("stillframe"), modules, INSTALLED, task)


def code_digest(modules: Iterable[str], *, task: str | None = None, packages: Iterable[str] = ()) -> str:
    """One sha256 over `closure_files` and the installed versions of other `packages` (names of distributions)."""
    digest = hashlib.sha256()
    for path in closure_files(modules, task=task):
        digest.update(
            f"{path.relative_to(INSTALLED).as_posix()} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode()
        )
    for package in packages:
        digest.update(f"{package} {version(package)}\n".encode())
    return digest.hexdigest()


def write(sources: Path, code: Path, task: str | None = None) -> None:
    """Write `digests` into the folder `code`, one JSON file a stage: what dvc.yaml names in place of the files."""
    fresh_folder(code)
    for name, files in digests(sources, task=task).items():
        write_json(code / f"{name}.json", files)


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
    graph = import_graph(sources.name)
    result = {}
    for path in sorted((sources / stages).glob("*.py")):
        if path.stem != "__init__":
            files = code_files(graph, [f"{sources.name}.{stages}.{path.stem}"], sources, task)
            result[path.stem] = {
                file.relative_to(sources.parent).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
                for file in files
            }
    return result
