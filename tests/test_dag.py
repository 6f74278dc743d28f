"""dvc.yaml: code deps are the imports, blocks are the signatures of run(), and DVC does with it what we promise."""

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
from stillframe import dag

BLOCKS: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
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


def test_code_deps_are_the_imports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    stale = dag.check()
    assert not stale, "run `make dag`:\n" + "\n".join(map(str, stale))


@pytest.mark.parametrize("stage", STAGES)
def test_a_block_is_the_signature_of_run(stage: str) -> None:
    block = BLOCKS[stage]
    module = importlib.import_module(f"stillframe.stages.{stage}")
    arguments = inspect.signature(module.run).parameters.values()
    positional = [argument.name for argument in arguments if argument.kind is argument.POSITIONAL_OR_KEYWORD]
    paths = {str(argument.default) for argument in arguments if argument.kind is argument.KEYWORD_ONLY}
    declared = [dep for dep in block["deps"] if not dep.startswith("src/")] + names(block["outs"])
    assert positional == [section.replace(".", "_") for section in block.get("params", [])]
    assert sorted(paths) == sorted(declared)


def test_every_other_file_of_the_package_belongs_to_a_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    """A template that no module names would be changed without a re-run. (No stage imports `sweep` or `serve`.)"""
    monkeypatch.chdir(ROOT)
    declared = {dep for block in BLOCKS.values() for dep in block["deps"]}
    assert not [dep for dep in declared if "/sweep/" in dep or "/serve/" in dep]
    assert {path.as_posix() for path in dag.other_files() if not {"sweep", "serve"} & set(path.parts)} <= declared


def test_no_value_of_params_is_read_into_dvc_yaml() -> None:
    """DVC would fill `${...}` from params.yaml before `compose` has run: the first repro would use the old value."""
    assert "${" not in (ROOT / "dvc.yaml").read_text(encoding="utf-8")


# --- the generator, on a made package ----------------------------------------------------------------------------


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package `toy` in tmp_path/src, and a dvc.yaml that declares nothing of it."""
    files = {
        "src/toy/__init__.py": '"""Toy."""\n__version__ = "1"\n',
        "src/toy/stage.py": '"""Stage."""\nfrom typing import TYPE_CHECKING\n'
        "if TYPE_CHECKING:\n    from toy import hints\n"
        "def run():\n    from toy.rooms import lazy\n    return lazy\n",
        "src/toy/hints.py": "",
        "src/toy/unused.py": "",
        "src/toy/deep.py": "",
        "src/toy/rooms/__init__.py": "from toy import deep\n",
        "src/toy/rooms/lazy.py": 'PAGE = "page.html"\n',
        "src/toy/rooms/page.html": "<link href=style.css>",
        "src/toy/rooms/style.css": "p {}",
        "src/toy/rooms/other.css": "p {}",
        "dvc.yaml": "# kept\nstages:\n  one: # kept too\n    cmd: python -m toy.stage\n    deps:\n      - data\n"
        "      - src/toy/unused.py\n    outs:\n      - out:\n          cache: false\n"
        "  later:\n    cmd: python -m toy.notyet\n    deps:\n      - src/toy/notyet.py\n",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path / "src")
    return tmp_path


RIGHT = [
    "src/toy/deep.py",
    "src/toy/rooms/__init__.py",
    "src/toy/rooms/lazy.py",
    "src/toy/rooms/page.html",
    "src/toy/rooms/style.css",
    "src/toy/stage.py",
]


def test_update_rewrites_the_code_deps_and_nothing_else(package: Path) -> None:
    (change,) = dag.update(package="toy")
    assert (change.stage, change.missing, change.extra) == ("one", RIGHT, ["src/toy/unused.py"])
    text = (package / "dvc.yaml").read_text(encoding="utf-8")
    assert text.startswith(
        "# kept\nstages:\n  one: # kept too\n    cmd: python -m toy.stage\n    deps:\n      - data\n"
    )
    blocks = yaml.safe_load(text)["stages"]
    assert blocks["one"]["deps"] == ["data", *RIGHT]
    assert blocks["one"]["outs"] == [{"out": {"cache": False}}]
    assert blocks["later"]["deps"] == ["src/toy/notyet.py"]
    assert dag.update(package="toy") == []
    assert (package / "dvc.yaml").read_text(encoding="utf-8") == text


def test_check_names_the_stage_and_the_files(package: Path) -> None:
    dag.update(package="toy")
    (package / "src/toy/deep.py").write_text("from toy import unused\n", encoding="utf-8")
    (change,) = dag.check(package="toy")
    assert str(change) == "one: missing src/toy/unused.py"
    (package / "src/toy/deep.py").write_text("", encoding="utf-8")
    (package / "src/toy/rooms/lazy.py").write_text("", encoding="utf-8")
    (change,) = dag.check(package="toy")
    assert str(change) == "one: not imported: src/toy/rooms/page.html, not imported: src/toy/rooms/style.css"


def test_a_module_that_does_not_parse_is_named(package: Path) -> None:
    (package / "src/toy/deep.py").write_text("def (\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"deep\.py:1 does not parse"):
        dag.check(package="toy")


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
    table(f"artifacts/{stage}/confusion.csv", "actual,predicted", [("ok", "ok"), ("bad", "ok"), ("bad", "bad")])
    table(f"artifacts/{stage}/reliability.csv", "stage,bin,confidence,accuracy,count",
          [(when, at, at / 3, at / 4, 5) for when in ("before", "after") for at in range(3)])
if stage == "evaluate":
    for name in ("roc", "pr"):
        table(f"artifacts/evaluate/{name}.csv", "class,x,y", 
              [(c, i / 3, i / 4) for c in ("ok", "bad") for i in range(3)])
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
        block["deps"] = [dep for dep in block["deps"] if not dep.startswith("src/")] + [f"code/{stage}.py"]
        (folder / "code").mkdir(exist_ok=True)
        (folder / f"code/{stage}.py").write_text(f"# {stage}\n", encoding="utf-8")
        if stage != "compose":
            block["cmd"] = f"python stub.py {stage}"
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


def test_an_edited_dependency_runs_its_stage(project: Path) -> None:
    (project / "code/evaluate.py").write_text("# changed\n", encoding="utf-8")
    assert ran(shell(project, "dvc", "repro")) == ["evaluate"]


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
    assert shell(folder, "git", "ls-files", "data") == ""


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
