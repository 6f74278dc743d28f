"""The code dependencies in dvc.yaml, from the imports; DVC itself does not see what a stage imports.

Under each stage's `deps`, what lies in the source folder is generated: the stage's own module, every module of the
package that it reaches by imports (those inside functions too, those for type checking only not), and the other
files (templates, style sheets) whose names those modules mention. An edited helper thus re-runs its stages.

A package's `__init__.py` is left out while it holds only a docstring and dunder constants: `__version__` must not
train every model anew.
"""

from __future__ import annotations

import ast
import sys
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stillframe.paths import write_text

if TYPE_CHECKING:
    from grimp import ImportGraph

DVC_YAML = Path("dvc.yaml")
SOURCES = Path("src")
PACKAGE = "stillframe"
NOT_READ = {"py.typed"}  # files of the package that no module reads


@dataclass(frozen=True)
class Change:
    """What differs between a stage's code deps in dvc.yaml and its imports."""

    stage: str
    missing: list[str]  # imported, not declared
    extra: list[str]  # declared, not imported (any more)

    def __str__(self) -> str:
        parts = [f"missing {path}" for path in self.missing] + [f"not imported: {path}" for path in self.extra]
        return f"{self.stage}: " + ", ".join(parts)


def import_graph(package: str = PACKAGE) -> ImportGraph:
    """The static import graph of an importable package.

    Raises:
        ValueError: grimp is not installed, or a module does not parse.
    """
    try:
        import grimp
        from grimp.exceptions import SourceSyntaxError
    except ImportError:
        raise ValueError("`dag` needs grimp: pip install 'stillframe[dev]'") from None
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


def module_file(module: str, sources: Path = SOURCES) -> Path:
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


def other_files(package: str = PACKAGE, sources: Path = SOURCES) -> list[Path]:
    """Files of the package that are not Python: templates, style sheets."""
    folder = sources / package
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc") and path.name not in NOT_READ
    )


def code_deps(graph: ImportGraph, module: str, sources: Path = SOURCES) -> list[str]:
    """The files of the package that decide what the stage `module` does, sorted; [] when it does not exist yet."""
    files = {module_file(name, sources) for name in closure(graph, module)}
    files = {path for path in files if path.name != "__init__.py" or not does_nothing(path)}
    texts = [path.read_text(encoding="utf-8") for path in files]
    waiting = other_files(module.split(".")[0], sources)
    while named := [path for path in waiting if any(path.name in text for text in texts)]:
        files |= set(named)  # a template may name further files
        texts = [path.read_text(encoding="utf-8", errors="ignore") for path in named]
        waiting = [path for path in waiting if path not in named]
    return sorted(path.as_posix() for path in files)


def _is_code(dep: Any, sources: Path) -> bool:
    return isinstance(dep, str) and dep.startswith(f"{sources.as_posix()}/")


def _module_of(block: dict[str, Any]) -> str:
    """The module of `cmd: python -m <module>`."""
    return str(block["cmd"]).split()[-1]


def changes(blocks: dict[str, Any], graph: ImportGraph, sources: Path = SOURCES) -> list[Change]:
    """The stages whose code deps are stale; stages whose module does not exist are left alone."""
    found = []
    for stage, block in blocks.items():
        right = code_deps(graph, _module_of(block), sources)
        declared = [dep for dep in block.get("deps", []) if _is_code(dep, sources)]
        if right and declared != right:
            missing = [path for path in right if path not in declared]
            extra = [path for path in declared if path not in right]
            found.append(Change(stage, missing, extra))
    return found


def update(dvc_yaml: Path = DVC_YAML, sources: Path = SOURCES, package: str = PACKAGE) -> list[Change]:
    """Rewrite the code deps in dvc.yaml, nothing else; returns what was stale."""
    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096
    yaml.indent(mapping=2, sequence=4, offset=2)
    document = yaml.load(dvc_yaml.read_text(encoding="utf-8"))
    graph = import_graph(package)
    stale = changes(document["stages"], graph, sources)
    for change in stale:
        block = document["stages"][change.stage]
        data = [dep for dep in block.get("deps", []) if not _is_code(dep, sources)]
        block["deps"] = data + code_deps(graph, _module_of(block), sources)
    if stale:
        out = StringIO()
        yaml.dump(document, out)
        write_text(dvc_yaml, out.getvalue())
    return stale


def check(dvc_yaml: Path = DVC_YAML, sources: Path = SOURCES, package: str = PACKAGE) -> list[Change]:
    """What is stale in dvc.yaml."""
    from ruamel.yaml import YAML

    blocks = YAML(typ="safe").load(dvc_yaml.read_text(encoding="utf-8"))["stages"]
    return changes(blocks, import_graph(package), sources)


def main(*, only_check: bool = False) -> None:
    """Write dvc.yaml (or only check it) and print what was stale; exits 1 when a check finds something."""
    stale = check() if only_check else update()
    for change in stale:
        print(change)
    if stale and only_check:
        sys.exit("dag: dvc.yaml does not name what its stages import: run `make dag`")
    print("dvc.yaml names what its stages import" if not stale else "dvc.yaml rewritten")
