"""What the house looks like in numbers, and what still breaks its rules: `make house`, or

    python tests/house.py            lines, functions, comments, cycles, names
    python tests/house.py --write    the same, and the debts as they are now into tests/house_debt.json, if they shrank

Rules are kept by tests/test_house.py. A debt may shrink and move between files; it must not grow.
"""

from __future__ import annotations

import ast
import io
import json
import re
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src/stillframe"
DEBT = Path(__file__).with_name("house_debt.json")

# Words of single tasks: they belong into tasks/<name>/. The engine says target, outputs, prediction, sample.
VOCABULARY = set("mask masks label labels box boxes logits softmax iou dice classification segmentation".split())
# Keywords of matplotlib's own functions.
MATPLOTLIB = set("axhline axvline bar barh colorbar errorbar fill_between hist legend plot scatter step Patch".split())
LIBRARIES = set(  # names that are not ours
    "ClassLabel get_legend_handles_labels set_label label_smoothing "
    "segmentation_models_pytorch segmentation_head".split()
)
# module -> names in it that cannot change: keys of files that users have, and prometheus_client's own method
FIXED = {
    "config/data.py": {"masks", "label"},  # data.masks, data.columns.label in params.yaml
    "ingest/target.py": {"label"},  # reads data.columns.label
    "inference/trained_model.py": {"masks"},  # reads data.masks
    "ingest/audit.py": {"kept"},  # audit.json
    "serving/middleware.py": {"labels"},
    "serving/prometheus.py": {"labels"},
    "serving/service.py": {"labels"},
}
# Words that say nothing about what they name; `at` and `one` inside a longer name do (`created_at`, `one_hot`).
DIALECT = set(
    "found said told place places word words known made asked asking given thing things shown kept held picture "
    "pictures film films shop lesson judged".split()
)


def sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def parts(name: str) -> set[str]:
    """The words of an identifier: `mask_of`, `MaskRow` and `MASK` all have `mask`."""
    return set(re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name).lower().split("_"))


def identifiers(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, name) of each identifier: names, attributes, parameters, keywords, functions, classes, imports."""
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 0)
        if isinstance(node, ast.Name):
            yield line, node.id
        elif isinstance(node, ast.Attribute):
            yield line, node.attr
        elif isinstance(node, ast.arg):
            yield line, node.arg
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield line, node.name
        elif isinstance(node, ast.ImportFrom | ast.Import):
            module = getattr(node, "module", None) or ""
            for alias in node.names:
                for part in f"{module}.{alias.name}.{alias.asname or ''}".split("."):
                    yield line, part
        elif isinstance(node, ast.MatchAs | ast.MatchStar) and node.name:
            yield line, node.name
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func).rpartition(".")[2]
            for keyword in node.keywords:
                if (
                    keyword.arg
                    and not (called in MATPLOTLIB and keyword.arg in ("label", "labels"))
                    and not (
                        called == "Table" and keyword.arg == "box"  # rich's
                    )
                ):
                    yield line, keyword.arg


def vocabulary(source: str, module: str = "") -> list[str]:
    """The identifiers of a module outside tasks/ that have a word of a task in them, as `line: name`."""
    fixed = LIBRARIES | FIXED.get(module, set())
    names = [(line, name) for line, name in identifiers(ast.parse(source)) if name not in fixed]
    return [f"{line}: {name}" for line, name in names if parts(name) & VOCABULARY]


def bindings(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, name) wherever a variable, parameter, attribute, function or class gets its name."""
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 0)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield line, node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield line, node.attr
        elif isinstance(node, ast.arg):
            yield line, node.arg
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield line, node.name


def dialect(source: str, module: str = "") -> list[str]:
    """The names of a module that say nothing about the thing, as `line: name`."""
    names = [(line, name) for line, name in bindings(ast.parse(source)) if name not in FIXED.get(module, ())]
    return [f"{line}: {name}" for line, name in names if parts(name) & DIALECT or name.strip("_") in ("at", "one")]


def cycles(package: str = "stillframe") -> list[list[str]]:
    """Groups of modules that import each other in a circle; imports inside functions count, for type checking not."""
    import grimp
    import numpy as np
    from scipy.sparse.csgraph import connected_components

    graph = grimp.build_graph(package, exclude_type_checking_imports=True, cache_dir=None)
    names = sorted(graph.modules)
    index = {name: number for number, name in enumerate(names)}
    imports_NN = np.zeros((len(names), len(names)), dtype=bool)
    for name in names:
        for imported in graph.find_modules_directly_imported_by(name):
            imports_NN[index[name], index[imported]] = True
    _, group_N = connected_components(imports_NN, connection="strong")
    groups = [[names[i] for i in np.flatnonzero(group_N == group)] for group in np.unique(group_N)]
    return sorted(group for group in groups if len(group) > 1)


def tasks() -> list[str]:
    return sorted(path.parent.name for path in (PACKAGE / "tasks").glob("*/__init__.py"))


def task_files(name: str) -> dict[str, bool]:
    """The files that CONTRIBUTING.md lists for a task, and whether this task has them."""
    section = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split("**A task.**")[1].split("```")[1]
    tests = {  # what a line of the list demands beyond that the file is there
        "src/stillframe/tasks/__init__.py": f'"{name}": ',
        "conf/": rf"^task: {name}$",
        "docs/": f"tasks/{name}/README.md",
    }
    files = {}
    for pattern in re.findall(r"(?:src|conf|tests|docs)/\S+", section):
        demand = next((text for start, text in tests.items() if pattern.startswith(start)), "")
        paths = ROOT.glob(pattern.replace("<name>", name))
        if pattern.startswith("conf/"):  # one option that selects the task is enough
            paths, pattern = (ROOT / "conf").rglob("*.yaml"), "conf"
        files[pattern] = any(re.search(demand, path.read_text(encoding="utf-8"), re.M) for path in paths)
    return files


def debts() -> dict[str, object]:
    """What breaks a rule today: cycles, words of tasks by file outside tasks/, names without a meaning by folder."""
    task_words: dict[str, int] = {}
    names: Counter[str] = Counter()
    for path in sources():
        name, text = path.relative_to(PACKAGE).as_posix(), path.read_text(encoding="utf-8")
        names[name.split("/")[0]] += len(dialect(text, name))
        breaches = 0 if name.startswith("tasks/") else len(vocabulary(text, name))
        if breaches:
            task_words[name] = breaches
    return {
        "cycles": cycles(),
        "vocabulary": task_words,
        "task files": {name: [f for f, there in task_files(name).items() if not there] for name in tasks()},
        "dialect": {name: count for name, count in sorted(names.items()) if count},
    }


def numbers() -> dict[str, object]:
    """Size, fragmentation and comments of src."""
    lines = functions = comments = 0
    for path in sources():
        text = path.read_text(encoding="utf-8")
        lines += len(text.splitlines())
        functions += sum(isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef) for n in ast.walk(ast.parse(text)))
        comments += sum(
            token.type == tokenize.COMMENT and not token.line.split("#")[0].strip()
            for token in tokenize.generate_tokens(io.StringIO(text).readline)
        )
    return {
        "files": len(sources()),
        "lines": lines,
        "functions": functions,
        "functions per 100 lines": round(100 * functions / lines, 2),
        "comment lines, %": round(100 * comments / lines, 2),
    }


def main(arguments: list[str]) -> None:
    current = debts()
    for name, value in numbers().items():
        print(f"{name:26}{value:>8}")
    words, names = current["vocabulary"], current["dialect"]
    assert isinstance(words, dict) and isinstance(names, dict)
    print(f"{'import cycles':26}{len(current['cycles']):>8}")
    print(f"{'words of tasks outside':26}{sum(words.values()):>8}   in {len(words)} files")
    missing = current["task files"]
    assert isinstance(missing, dict)
    print(f"{'files missing of tasks':26}{sum(map(len, missing.values())):>8}")
    print(f"{'names without a meaning':26}{sum(names.values()):>8}   {names}")
    for name in arguments:  # files: their lines
        if name.endswith(".py"):
            text, module = Path(name).read_text(encoding="utf-8"), name.partition("src/stillframe/")[2]
            print(f"{name}\n  of tasks: {vocabulary(text, module)}\n  without a meaning: {dialect(text, module)}")
    if "--write" in arguments:
        before = json.loads(DEBT.read_text(encoding="utf-8"))
        for kind in ("vocabulary", "dialect"):
            grown = sum(current[kind].values()) - sum(before[kind].values())
            if grown > 0:
                sys.exit(f"{kind} grew by {grown}: name the things, then write")
        DEBT.write_text(json.dumps(current, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
