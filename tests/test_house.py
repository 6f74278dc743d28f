"""The rules of the house, as tests (CONTRIBUTING.md says why each one is there)."""

from __future__ import annotations

import ast
import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml

import house
from stillframe.config import hydra_compose
from stillframe.tasks import TASKS, find_task

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "src/stillframe").rglob("*.py"))
CONF = ROOT / "conf"
OPTIONS = sorted(path for path in CONF.glob("*/*.yaml") if path.parent.name != "gate")  # rules about runs, no choice
FUNCTION_LINES, FILE_LINES, STAGE_LINES = 60, 400, 120


def where(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def tracked() -> list[Path]:
    """What git would carry: tracked files, and new ones that are not ignored."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout: there is nothing that git would carry")
    paths = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    return [path for path in paths if path.is_file() and not path.is_symlink()]


# --- code --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", SOURCES, ids=where)
def test_files_and_functions_are_short(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    bound = STAGE_LINES if path.parent.name == "stages" else FILE_LINES
    assert len(text.splitlines()) <= bound
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            assert lines <= FUNCTION_LINES, f"{node.name} has {lines} lines"


@pytest.mark.parametrize("path", SOURCES, ids=where)
def test_no_branch_on_the_task(path: Path) -> None:
    """What differs between tasks is a field of `tasks.base.Task`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Compare):
            words = [ast.unparse(side) for side in (node.left, *node.comparators)]
            literal = any(isinstance(side, ast.Constant) for side in (node.left, *node.comparators))
            assert not (literal and any(re.search(r"(^|\.)task(\.name)?$", word) for word in words)), ast.unparse(node)


@pytest.mark.parametrize("path", SOURCES, ids=where)
def test_no_error_is_swallowed(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ExceptHandler):
            only_pass = all(isinstance(line, ast.Pass) for line in node.body)
            broad = node.type is None or ast.unparse(node.type) in ("Exception", "BaseException")
            assert not (only_pass and broad), f"line {node.lineno}"


def test_no_import_cycle() -> None:
    """Imports inside functions count. `house_debt.json` lists what is still left of them."""
    allowed = json.loads(house.DEBT.read_text(encoding="utf-8"))["cycles"]
    new = [cycle for cycle in house.cycles() if not any(set(cycle) <= set(names) for names in allowed)]
    assert not new


def test_names_are_of_the_thing_and_words_of_a_task_stay_in_its_folder() -> None:
    """Debts of `house_debt.json` may shrink: `python tests/house.py --write` notes it (and that a file moved)."""
    allowed, current = json.loads(house.DEBT.read_text(encoding="utf-8")), house.debts()
    for kind in ("vocabulary", "dialect"):
        grown = {name: n for name, n in current[kind].items() if n > allowed[kind].get(name, 0)}
        assert not grown, f"{kind}: `python tests/house.py FILE` lists the names; allowed {allowed[kind]}"


# (file, word): a word that is also the name of a metric, and means something else there
OTHER_MEANINGS = {
    ("config/evaluation.py", "f1"),  # how a threshold is tuned
    ("training/loop.py", "precision"),  # of the numbers: 32 or 16 bits
    ("training/probe.py", "precision"),
    ("reporting/text.py", "precision"),
}


def metric_literals(source: str, names: set[str]) -> list[str]:
    """String constants that are the name of a metric, alone or after a split, as `line: name`."""
    constants = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant)]
    return [
        f"{node.lineno}: {node.value}"
        for node in constants
        if isinstance(node.value, str) and re.sub(r"^(train|val|test)/", "", node.value) in names
    ]


def test_metrics_are_named_by_tasks_only() -> None:
    """All else is said with the `Metric` objects of the task."""
    names = {metric.name for name in TASKS for metric in find_task(name).metrics}
    for path in SOURCES:
        name = path.relative_to(ROOT / "src/stillframe").as_posix()
        if not name.startswith("tasks/"):
            literals = metric_literals(path.read_text(encoding="utf-8"), names)
            literals = [line for line in literals if (name, line.partition(": ")[2]) not in OTHER_MEANINGS]
            assert not literals, f"{name}: {literals}"


def test_a_planted_name_of_a_metric_is_found() -> None:
    planted = 'keys = {"f1_macro": 1}\nif name == "val/iou_macro":\n    print("accuracy is no key here", "loss")\n'
    assert metric_literals(planted, {"f1_macro", "iou_macro", "accuracy"}) == ["1: f1_macro", "2: val/iou_macro"]


def test_a_planted_word_of_a_task_is_found() -> None:
    planted = "def draw(mask_HW, *, size):\n    return BoxDrawer(size).softmax(labels=mask_HW, alpha=MASK)\n"
    lines = ["1: mask_HW", "2: BoxDrawer", "2: MASK", "2: labels", "2: mask_HW", "2: softmax"]
    assert sorted(house.vocabulary(planted)) == lines
    assert house.vocabulary("from stillframe.tasks.segmentation import losses") == ["1: segmentation"]
    plain = "ax.plot(x, y, label='mask')\nax.set_xlabel('iou')\ntarget, masked = outputs, selected\n"
    assert house.vocabulary(plain) == []


def test_a_planted_name_without_a_meaning_is_found() -> None:
    planted = "found = [at for at in told]\ndef given_rows(one): self.kept_rows = one\n"
    assert sorted(house.dialect(planted)) == ["1: at", "1: found", "2: given_rows", "2: kept_rows", "2: one"]
    assert house.dialect("created_at = find(one_hot)\nknown.update(row)\n") == []


@pytest.mark.parametrize("task", house.tasks())
def test_a_task_is_the_files_that_contributing_lists(task: str) -> None:
    missing = [name for name, there in house.task_files(task).items() if not there]
    allowed = json.loads(house.DEBT.read_text(encoding="utf-8"))["task files"].get(task, [])
    assert set(missing) <= set(allowed)
    assert len(house.task_files(task)) == 10, "all lines of the list are understood"


def test_rooms_have_names_that_say_what_is_in_them() -> None:
    refused = {"utils", "util", "core", "common", "helpers", "helper", "misc", "lib"}
    named = {part for path in SOURCES for part in (*path.relative_to(ROOT).parts[:-1], path.stem)}
    assert not named & refused


def test_a_package_init_that_does_something_is_one_that_knows_its_siblings() -> None:
    """Importing a package must cost nothing; `tasks` lists its folders, each of them holds its `TASK`."""
    from stillframe.code_fingerprint import does_nothing

    busy = {
        path.parent.name
        for path in SOURCES
        if path.name == "__init__.py" and path.parents[1].name != "tasks" and not does_nothing(path)
    }
    assert busy <= {"tasks", "config"}


def test_the_light_stages_do_not_import_torch() -> None:
    """Start-up counts: torch costs more than a second in each of these stages, and none needs it."""
    import sys

    program = (
        "import sys\n"
        "from stillframe.stages import {stage}\n"
        "heavy = {{'torch', 'pytorch_lightning', 'mlflow', 'hydra', 'matplotlib'}} & set(sys.modules)\n"
        "sys.exit(str(sorted(heavy)) if heavy else 0)\n"
    )
    for stage in ("compose", "fetch", "preprocess", "augment"):
        done = subprocess.run(
            [sys.executable, "-c", program.format(stage=stage)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{stage}: {done.stderr}"


# --- what git carries --------------------------------------------------------------------------------------------


def test_no_binary_and_no_large_file_in_git() -> None:
    """Test data is made by the tests. Pictures of the documentation are the exception, up to 500 kB."""
    for path in tracked():
        raw = path.read_bytes()
        if where(path).startswith("docs/") and path.suffix in (".png", ".svg", ".webp"):
            assert len(raw) <= 500_000, where(path)
            continue
        assert b"\0" not in raw[:8000], f"{where(path)} is binary"
        assert len(raw) <= 200_000, f"{where(path)} has {len(raw)} bytes"


def test_no_package_index_is_named() -> None:
    """Pins must work against any mirror; pip is configured where it runs."""
    hosts = re.compile(
        "|".join(["py" + r"pi\.org", "python" + r"hosted\.org", "--index" + "-url", "--find" + "-links"])
    )
    for path in tracked():
        if path.suffix not in (".png", ".svg", ".webp"):
            found = hosts.search(path.read_text(encoding="utf-8"))
            assert not found, f"{where(path)}: {found and found.group()}"


def test_the_lock_pins_everything() -> None:
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9-]+==[^\s;]+( ; sys_platform == \"linux\")?", pin) for pin in pins)
    pinned = {pin.partition("==")[0] for pin in pins}
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    import tomllib

    facts = tomllib.loads(project)["project"]
    asked = [*facts["dependencies"], *facts["optional-dependencies"]["dev"]]
    names = {re.split(r"[\[<>=!~;\s]", text)[0].lower().replace("_", "-").replace(".", "-") for text in asked}
    assert names <= pinned, "run `make lock`"
    assert "elpv-dataset" not in pinned, "the DAG fetches it"


# --- configuration -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [CONF / "config.yaml", *OPTIONS], ids=where)
def test_a_conf_file_says_what_it_is(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    header = [line for line in lines[:3] if line.startswith("#") and "@package" not in line]
    assert header and len(header[0]) > 12


@pytest.mark.parametrize("path", OPTIONS, ids=where)
def test_every_option_composes(path: Path) -> None:
    hydra_compose.compose([f"{path.parent.name}={path.stem}"], CONF)


@pytest.mark.parametrize("path", sorted((CONF / "experiment").glob("*.yaml")), ids=where)
def test_an_experiment_states_command_cost_and_score(path: Path) -> None:
    header = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    for word in ("Command:", "Cost:", "Score:"):
        assert any(line.startswith(f"# {word}") for line in header), f"{where(path)} has no line `# {word} ...`"
    assert any(f"experiment={path.stem}" in line for line in header)


@pytest.mark.parametrize("path", sorted((CONF / "experiment").glob("*.yaml")), ids=where)
def test_an_experiment_stands_for_itself(path: Path) -> None:
    """It names its data, augment, model, optim and trainer: the same run whatever config.yaml selects."""
    text = path.read_text(encoding="utf-8")
    for group in ("data", "augment", "model", "optim", "trainer"):
        assert f"override /{group}:" in text
    assert text.startswith("# @package _global_\n")


def test_the_demo_is_the_default() -> None:
    """`dvc repro` on a fresh checkout is the experiment elpv_demo (`stillframe use` may have changed two lines)."""
    default = ["data=elpv", "augment=symmetric"]
    assert hydra_compose.compose(default, CONF) == hydra_compose.compose(["experiment=elpv_demo"], CONF)


def test_own_images_take_nothing_from_the_demo() -> None:
    values = hydra_compose.compose(["data=folder", "data.path=/photos"], CONF)
    assert values["data"]["fetch"] is None
    assert values["data"]["classes"] is None and values["data"]["columns"]["slices"] == []
    assert set(values["evaluate"]["slices"]) <= {"size", "mode"}


def test_no_key_that_yaml_1_1_reads_as_a_truth_value() -> None:
    """DVC and Hydra read YAML differently: `on`, `off`, `y`, `n` as keys or bare words would be true or false."""

    def words(value: object) -> list[object]:
        if isinstance(value, dict):
            return [word for key, inner in value.items() for word in (key, *words(inner))]
        return [word for inner in value for word in words(inner)] if isinstance(value, list) else []

    for path in [CONF / "config.yaml", *OPTIONS]:
        keys = words(yaml.safe_load(path.read_text(encoding="utf-8")))
        assert all(not isinstance(key, bool) for key in keys), where(path)
