"""dvc.yaml: blocks are the signatures of run(), code is found by imports, and DVC does with it what we promise."""

from __future__ import annotations

import importlib
import inspect
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from door import ROOT, STAGES, commit, ran, settings_of_the_repository, shell
from stillframe import code_fingerprint
from stillframe.tasks import TASKS

BLOCKS: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
IMPORTS_A_TASK = {"export"}  # by name, whatever is selected: to be empty
NOT_PARAMS = {"compose": {"conf", "params.yaml"}}  # its edges are the configuration itself


def names(paths: list[Any]) -> list[str]:
    return [path if isinstance(path, str) else next(iter(path)) for path in paths]


# --- the file as it stands ---------------------------------------------------------------------------------------


def test_the_stages_are_the_modules() -> None:
    modules = {path.stem for path in (ROOT / "src/stillframe/stages").glob("*.py")} - {"__init__"}
    assert list(BLOCKS) == STAGES
    assert modules == set(STAGES)
    for stage, block in BLOCKS.items():
        assert block["cmd"] == f"python -m stillframe.stages.{stage}"
        assert block["desc"]


def test_every_stage_depends_on_its_code() -> None:
    for stage, block in BLOCKS.items():
        code = [dep for dep in block["deps"] if "code" in dep or dep.startswith("src")]
        assert code == (["src/stillframe"] if stage == "compose" else [f"artifacts/code/{stage}.json"])


@pytest.mark.parametrize("stage", STAGES)
def test_a_block_is_the_signature_of_run(stage: str) -> None:
    block = BLOCKS[stage]
    module = importlib.import_module(f"stillframe.stages.{stage}")
    arguments = inspect.signature(module.run).parameters.values()
    positional = [argument.name for argument in arguments if argument.kind is argument.POSITIONAL_OR_KEYWORD]
    paths = {str(argument.default) for argument in arguments if argument.kind is argument.KEYWORD_ONLY}
    declared = [dep for dep in block["deps"] if not dep.startswith("artifacts/code/")] + names(block["outs"])
    assert positional == [section.replace(".", "_") for section in block.get("params", [])]
    assert sorted(paths) == sorted(declared)


def test_every_other_file_of_the_package_belongs_to_a_stage() -> None:
    """A template that no module names would be changed without a re-run. (No stage imports `sweeps` or `serving`.)"""
    found = {path for files in code_fingerprint.digests(ROOT / "src/stillframe").values() for path in files}
    assert not [path for path in found if "/sweeps/" in path or "/serving/" in path]
    others = {path.relative_to(ROOT / "src") for path in code_fingerprint.other_files(ROOT / "src/stillframe")}
    assert {path.as_posix() for path in others if not {"sweeps", "serving"} & set(path.parts)} <= found


@pytest.mark.parametrize("task", TASKS)
def test_a_stage_depends_on_the_code_of_its_own_task_only(task: str) -> None:
    """What a task imports of another one (clips of classification) counts as its own."""
    files = code_fingerprint.digests(ROOT / "src/stillframe", task=TASKS[task])
    stages = [paths for name, paths in files.items() if name not in IMPORTS_A_TASK]
    folders = {path.split("/")[2] for paths in stages for path in paths if path.startswith("stillframe/tasks/")}
    shared = {path.name for path in (ROOT / "src/stillframe/tasks").glob("*.py")}
    of_others = {"classification"} if task in ("video_classification", "multilabel") else set()
    assert folders - shared == {task} | of_others
    assert f"stillframe/tasks/{task}/learning.py" in files["train"]
    for stage in ("validate", "evaluate"):
        assert f"stillframe/tasks/{task}/evaluation.py" in files[stage]
    assert f"stillframe/tasks/{task}/learning.py" not in files["fetch"]


@pytest.mark.parametrize(
    "source",
    ["task.learning", "self.task.learning", "find_task(name).learning", "chosen = find_task(name)\nchosen.learning"]
    + [
        "def run(chosen: Task): chosen.learning",
        "class Run:\n chosen: Task\n def go(self): self.chosen.learning",
    ],
)
def test_a_part_of_a_task_is_seen_under_any_name(tmp_path: Path, source: str) -> None:
    (tmp_path / "module.py").write_text(source, encoding="utf-8")
    assert "learning" in code_fingerprint.attributes_of_task((tmp_path / "module.py").read_text(encoding="utf-8"))


def test_every_list_of_code_is_the_same_closure() -> None:
    module = "stillframe.stages.train"
    stage = code_fingerprint.digests(ROOT / "src/stillframe", task=TASKS["segmentation"])["train"]
    files = code_fingerprint.closure_files([module], task=TASKS["segmentation"])
    assert [path.relative_to(ROOT / "src").as_posix() for path in files] == list(stage)
    one = code_fingerprint.code_digest([module])
    assert one == code_fingerprint.code_digest([module])
    assert one != code_fingerprint.code_digest([module], task=TASKS["segmentation"])
    assert one != code_fingerprint.code_digest([module], packages=["numpy"])


def test_no_value_of_params_is_read_into_dvc_yaml() -> None:
    """DVC would fill `${...}` from params.yaml before `compose` has run: the first repro would use the old value."""
    assert "${" not in (ROOT / "dvc.yaml").read_text(encoding="utf-8")


# --- the code of a stage, on a made package ------------------------------------------------------------------------


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package `toy` with two stages, importable."""
    files = {
        "toy/__init__.py": '"""Toy."""\n__version__ = "1"\n',
        "toy/stages/__init__.py": "",
        "toy/stages/one.py": '"""Stage."""\nfrom typing import TYPE_CHECKING\n'
        "if TYPE_CHECKING:\n    from toy import hints\n"
        "def run():\n    from toy.rooms import lazy\n    return lazy\n",
        "toy/stages/two.py": "",
        "toy/hints.py": "",
        "toy/unused.py": "",
        "toy/deep.py": "",
        "toy/rooms/__init__.py": "from toy import deep\n",
        "toy/rooms/lazy.py": 'PAGE = "page.html"\n',
        "toy/rooms/page.html": "<link href=style.css>",
        "toy/rooms/style.css": "p {}",
        "toy/rooms/other.css": "p {}",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path / "toy"


def test_the_code_of_a_stage_is_what_it_imports_and_what_that_names(package: Path) -> None:
    found = code_fingerprint.digests(package)
    assert list(found["one"]) == [
        "toy/deep.py",
        "toy/rooms/__init__.py",
        "toy/rooms/lazy.py",
        "toy/rooms/page.html",
        "toy/rooms/style.css",
        "toy/stages/one.py",
    ]
    assert list(found["two"]) == ["toy/stages/two.py"]


def test_an_edit_changes_the_file_of_those_that_import_it_alone(package: Path, tmp_path: Path) -> None:
    def written() -> dict[str, bytes]:
        code_fingerprint.write(package, tmp_path / "code")
        return {path.stem: path.read_bytes() for path in (tmp_path / "code").iterdir()}

    before = written()
    assert set(before) == {"one", "two"} and written() == before
    for name in ("unused.py", "hints.py", "rooms/other.css", "__init__.py"):
        (package / name).write_text('"""Edited."""\n', encoding="utf-8")
    assert written() == before
    for name in ("deep.py", "rooms/style.css"):
        (package / name).write_text("# edited\n", encoding="utf-8")
        after = written()
        assert after["one"] != before["one"] and after["two"] == before["two"]
        before = after
    (package / "deep.py").write_text("from toy import unused\n", encoding="utf-8")
    assert "toy/unused.py" in code_fingerprint.digests(package)["one"]


def test_a_module_that_does_not_parse_is_named(package: Path) -> None:
    (package / "deep.py").write_text("def (\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"deep\.py:1 does not parse"):
        code_fingerprint.digests(package)
    with pytest.raises(FileNotFoundError, match="run this in the root of the repository"):
        code_fingerprint.digests(package / "rooms")


# --- what DVC does with it: the real dvc.yaml, its stages replaced by small programs --------------------------------

STUB = """
import json, sys
from pathlib import Path
import yaml
stage, params = sys.argv[1], yaml.safe_load(open("params.yaml"))
def write(path, text):
    path = Path(path); path.parent.mkdir(parents=True, exist_ok=True); path.write_text(text)
def table(path, header, rows):
    write(path, "\\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\\n")
if stage == params.get("augment", {}).get("name"):
    sys.exit("this stage fails")
if stage == "fetch":
    write("data/raw/a.txt", str(params["data"]["fetch"]))
if stage == "preprocess":
    for split in ("train", "val", "test"):
        write(f"data/prepared/{split}/images", params["data"]["name"])
    write("data/prepared/card.json", "{}")
if stage == "augment":
    write("data/augmented/policy.json", json.dumps(params["augment"]))
if stage == "train":
    lr = params["optim"]["lr"]
    table("artifacts/train/history.csv", "epoch,train/loss,val/loss,val/accuracy,val/f1_macro,lr",
          [(epoch, 1 / (epoch + 1), 1.1 / (epoch + 1), 0.8, 0.7, lr) for epoch in range(3)])
    write("artifacts/train/model.json", json.dumps(params["model"]))
if stage in ("validate", "evaluate"):
    score = round(1 - params["optim"]["lr"], 6)
    write(f"artifacts/{stage}/metrics.json", json.dumps({"accuracy": score, "recall/defective": 0.5}))
    split, plots = {"validate": "validation", "evaluate": "test"}[stage], f"artifacts/{stage}/plots"
    # a comma in a file's name is written as the real stages write it: the name is the plot's title
    table(f"{plots}/confusion/Confusion, {split} split.csv", "actual,predicted,count",
          [("ok", "ok", 1), ("bad", "ok", 1), ("bad", "bad", 1)])
    table(f"{plots}/curves/Reliability, {split} split.csv", "x,y,series",
          [(i / 3, i / 4, when) for when in ("before", "after") for i in range(3)])
if stage == "evaluate":
    table(f"{plots}/curves/ROC by class, test split.csv", "x,y,series",
          [(i / 3, i / 4, c) for c in ("ok", "bad") for i in range(3)])
if stage == "export":
    write("artifacts/export/export.json", "{}")
if stage == "report":
    write("artifacts/report/report.html", "<p>")
"""


def build(folder: Path) -> Path:
    """A committed project with the repository's conf/, dvc.yaml and .dvc/; only `compose` is the real stage."""
    settings_of_the_repository(folder)
    (folder / "stub.py").write_text(STUB, encoding="utf-8")
    document = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))
    for stage, block in document["stages"].items():
        if stage != "compose":
            block["cmd"] = f"python stub.py {stage}"
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    (folder / "dvc.yaml").write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    shell(folder, sys.executable, "-m", "stillframe.stages.compose")
    commit(folder, "start")
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stub project after its first `dvc repro`, committed; tests work on copies of it."""
    folder = build(tmp_path_factory.mktemp("dag") / "project")
    assert ran(shell(folder, "dvc", "repro")) == STAGES
    commit(folder, "first run")
    return folder


@pytest.fixture
def project(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "project", symlinks=True))


def test_a_second_repro_runs_nothing(project: Path) -> None:
    assert ran(shell(project, "dvc", "repro")) == []
    assert shell(project, "git", "status", "--short") == ""


def test_an_edit_in_conf_runs_what_it_touches(project: Path) -> None:
    policy = project / "conf/augment/symmetric.yaml"
    policy.write_text(policy.read_text(encoding="utf-8").replace("p: 0.5", "p: 0.4", 1), encoding="utf-8")
    output = shell(project, "dvc", "repro")
    assert ran(output)[:3] == ["compose", "augment", "train"]
    assert "fetch" not in ran(output) and "preprocess" not in ran(output)


def test_a_hand_edit_of_params_runs_nothing_but_compose(project: Path) -> None:
    params = project / "params.yaml"
    before = params.read_bytes()
    params.write_bytes(before.replace(b"seed: 0", b"seed: 5"))
    assert ran(shell(project, "dvc", "repro")) == ["compose"]
    assert params.read_bytes() == before


def test_edited_code_runs_the_stages_that_import_it(project: Path) -> None:
    for name, stages in (
        ("stages/evaluate.py", ["evaluate"]),
        ("inference/split_predictor.py", ["validate", "evaluate"]),
        ("cli.py", []),
        ("tasks/segmentation/learning.py", []),  # the project classifies
    ):
        path = project / "src/stillframe" / name
        path.write_text(path.read_text(encoding="utf-8") + "# changed\n", encoding="utf-8")
        assert ran(shell(project, "dvc", "repro")) == ["compose", *stages]
    template = project / "src/stillframe/reporting/page.css"
    template.write_text(template.read_text(encoding="utf-8") + "/* changed */\n", encoding="utf-8")
    assert ran(shell(project, "dvc", "repro")) == ["compose", "report"]


def test_exp_run_overrides_reach_the_stages(project: Path) -> None:
    """Group swaps and values; then `metrics diff`, `plots diff` and `exp show` on the result."""
    output = shell(project, "dvc", "exp", "run", "-n", "wide", "-S", "model=resnet18", "-S", "optim.lr=3e-4")
    assert "augment" not in ran(output) and "train" in ran(output)
    assert '"resnet18"' in (project / "artifacts/train/model.json").read_text(encoding="utf-8")
    assert "0.9997" in shell(project, "dvc", "metrics", "show")
    assert "0.0007" in shell(project, "dvc", "metrics", "diff", "--all")
    assert "wide" in shell(project, "dvc", "exp", "show", "--csv")
    shell(project, "dvc", "plots", "diff", "HEAD", "workspace", "-o", "plots")
    page = (project / "plots/index.html").read_text(encoding="utf-8")
    for title in ("Loss by epoch", "Confusion, test split", "ROC by class", "Reliability, validation split"):
        assert title in page


def test_own_images_by_one_override(project: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    (images / "a.png").write_bytes(b"x")
    output = shell(project, "dvc", "exp", "run", "-S", "data=folder", "-S", f"data.path={images}")
    assert ran(output)[:3] == ["compose", "fetch", "preprocess"]
    assert os.readlink(project / "data/source") == str(images)
    assert (project / "data/prepared/train/images").read_text(encoding="utf-8") == "folder"
    (images / "b.png").write_bytes(b"y")
    assert "data/source" in shell(project, "dvc", "status", "preprocess")


def test_after_a_failed_first_repro_git_adds_no_data(tmp_path: Path) -> None:
    folder = tmp_path / "project"
    folder.mkdir()
    build(folder)
    edit = folder / "conf/augment/symmetric.yaml"
    edit.write_text(edit.read_text(encoding="utf-8").replace("name: symmetric", "name: train"), encoding="utf-8")
    output = shell(folder, "dvc", "repro", fails=True)
    assert "this stage fails" in output
    assert (folder / "data/augmented/policy.json").exists()
    shell(folder, "git", "add", "-A")
    added = set(shell(folder, "git", "diff", "--cached", "--name-only").split())
    assert added == {"conf/augment/symmetric.yaml", "params.yaml", "dvc.lock"}
    assert shell(folder, "git", "ls-files", "data") == "data/.gitignore\n"


def test_an_experiment_on_one_s_own_images_puts_none_of_them_into_git(tmp_path: Path) -> None:
    folder, images = tmp_path / "project", tmp_path / "images"
    folder.mkdir()
    images.mkdir()
    (images / "private.jpg").write_bytes(b"private")
    build(folder)
    shell(folder, "dvc", "exp", "run", "-S", "data=folder", "-S", f"data.path={images}")
    everything = shell(folder, "git", "rev-list", "--all", "--objects", "--reflog")
    refs = shell(folder, "git", "for-each-ref", "refs/exps", "--format=%(refname)").split()
    assert refs, "the experiment was committed"
    names = [shell(folder, "git", "ls-tree", "-r", "--name-only", ref) for ref in refs]
    assert not [name for name in names if "private" in name] and "private" not in everything
