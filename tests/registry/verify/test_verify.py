"""`stillframe verify` through its door on a made repository; the stages' own work is played by a function."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from door import commit, shell
from stillframe import cli
from stillframe.paths import read_json, write_json
from stillframe.registry.verify import rebuild

PARAMS = (Path(__file__).parents[3] / "params.yaml").read_text(encoding="utf-8")
LOCK = """schema: '2.0'
stages:
  preprocess:
    params:
      params.yaml:
        near: off
    outs:
    - {path: data/prepared, md5: aaaa.dir}
  augment:
    outs:
    - {path: data/augmented, md5: cccc.dir}
  train:
    outs:
    - {path: artifacts/train, md5: dddd}
"""
CACHED = {
    "aa/aa.dir": '[{"md5": "bbbb", "relpath": "x"}]',
    "bb/bb": "x",
    "cc/cc.dir": '[{"md5": "eeee"}]',
    "dd/dd": "m",
}


class Checkout:
    """A repository with a run in MLflow, whose record a test may spoil."""

    def __init__(self, folder: Path, store: str, client: Any) -> None:
        self.folder, self.store, self.client = folder, store, client
        place = client.get_experiment_by_name("stillframe").experiment_id
        self.run = str(client.create_run(place).info.run_id)
        (folder / ".dvc").mkdir()
        (folder / "code.py").write_text("one\n", encoding="utf-8")
        (folder / ".gitignore").write_text("/.work/\n/artifacts/\n/.dvc/cache\n/photos\n", encoding="utf-8")
        commit(folder, "start")
        values = yaml.safe_load(PARAMS)
        values["data"]["path"] = "photos"
        (folder / "photos").mkdir()
        (folder / "params.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
        for name, text in CACHED.items():
            path = folder / ".dvc/cache/files/md5" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        self.tag("mlflow.source.git.commit", shell(folder, "git", "rev-parse", "HEAD").strip())
        self.send("lineage/params.yaml", (folder / "params.yaml").read_text(encoding="utf-8"))
        self.send("lineage/dvc.lock", LOCK)
        self.results(self.run, 0.9)
        write_json(folder / "artifacts/train/run.json", {"run_id": self.run, "tracking_uri": store})

    def tag(self, name: str, value: str) -> None:
        self.client.set_tag(self.run, name, value)

    def send(self, name: str, text: str, run: str | None = None) -> None:
        self.client.log_text(run or self.run, text, name)

    def forget(self, name: str) -> None:
        place = self.client.get_run(self.run).info.artifact_uri.removeprefix("file://")
        Path(place, name).unlink()

    def results(self, run: str, accuracy: float, status: str = "FINISHED") -> None:
        self.client.log_metric(run, "test/accuracy", accuracy)
        self.send("model/model.json", json.dumps({"accuracy": accuracy}), run)
        self.client.set_terminated(run, status)


@pytest.fixture
def checkout(tmp_path: Path, store: str, client: Any, monkeypatch: pytest.MonkeyPatch) -> Checkout:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    return Checkout(tmp_path, store, client)


def played(monkeypatch: pytest.MonkeyPatch, checkout: Checkout, accuracy: float) -> dict[str, Any]:
    """Instead of `dvc repro`: a run with this accuracy. What it was given, and what lay in the clone."""
    seen: dict[str, Any] = {}

    def repro(root: Path, recorded: Any, folder: Path, outs: list[str], store: str, log: Path) -> None:
        files = [path for path in folder.rglob("*") if path.is_file() and ".git/" not in str(path)]
        seen.update(outs=outs, store=store, folder=folder)
        seen["files"] = {path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8") for path in files}
        seen["cache"] = sorted(path.name for path in (folder.parent / "cache").rglob("*") if path.is_file())
        seen["photos"] = (folder / "photos").resolve()
        run = str(checkout.client.create_run(checkout.client.get_run(checkout.run).info.experiment_id).info.run_id)
        checkout.results(run, accuracy)
        write_json(folder / "artifacts/train/run.json", {"run_id": run, "tracking_uri": checkout.store})

    real = rebuild.repro
    monkeypatch.setattr(rebuild, "repro", repro)
    monkeypatch.setattr("stillframe.registry.verify.run.connect", lambda tracking, uri: checkout.client)
    assert real is not repro
    return seen


def test_equal_is_0_and_leaves_nothing_behind(checkout, monkeypatch, capsys) -> None:
    seen = played(monkeypatch, checkout, 0.9)
    for afterwards in ("serving/0123/MLmodel", "gate/verdict.json"):  # by `stillframe promote` and `gate`
        checkout.send(afterwards, "of a registration")
    assert cli.main(["verify"]) == 0
    assert f"run {checkout.run}: equal (1 metrics, 1 files" in capsys.readouterr().out
    assert list((checkout.folder / ".work").iterdir()) == []
    assert read_json(checkout.folder / f"artifacts/verify/{checkout.run}.json")["equal"] is True
    assert seen["store"] != checkout.store, "the rebuild writes into a store of its own"


def test_different_is_1_and_says_what(checkout, monkeypatch, capsys) -> None:
    seen = played(monkeypatch, checkout, 0.8)
    assert cli.main(["verify", checkout.run, "--keep"]) == 1
    said = capsys.readouterr().out
    assert "test/accuracy" in said and "model/model.json" in said and "2 differ" in said
    facts = read_json(checkout.folder / f"artifacts/verify/{checkout.run}.json")
    assert facts["results"][0] == {"kind": "metric", "name": "test/accuracy", "recorded": "0.9", "rebuilt": "0.8"}
    assert seen["folder"].is_dir() and f"kept: {seen['folder']}" in said
    assert cli.main(["verify", "--within", "0.2"]) == 0


def test_the_clone_has_the_record_and_no_results(checkout, monkeypatch) -> None:
    (checkout.folder / "code.py").write_text("edited\n", encoding="utf-8")
    patch = shell(checkout.folder, "git", "diff", "HEAD").strip()  # as older records have it, without its last newline
    checkout.send("lineage/uncommitted.diff", f"{patch}\n")
    (checkout.folder / "code.py").write_text("edited since\n", encoding="utf-8")
    (checkout.folder / "untracked.py").write_text("not of the run\n", encoding="utf-8")
    seen = played(monkeypatch, checkout, 0.9)
    assert cli.main(["verify"]) == 0
    files = seen["files"]
    assert files["code.py"] == "edited\n" and "untracked.py" not in files
    assert yaml.safe_load(files["params.yaml"])["data"]["path"] == "photos"
    assert seen["photos"] == checkout.folder / "photos", "a relative folder of images is that of the checkout"
    assert "train" not in files["dvc.lock"] and "near: off" in files["dvc.lock"], (
        "off is a word to DVC, false to YAML 1.1"
    )
    assert seen["outs"] == ["data/prepared"], "the other one's object lists a file that the cache has lost"
    assert seen["cache"] == ["aa.dir", "bb"], "nothing of train and later"


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda one: one.tag("mlflow.source.git.commit", "none"), "has no git commit"),
        (lambda one: one.tag("mlflow.source.git.commit", "f" * 40), "git does not know its commit ffff"),
        (lambda one: one.send("lineage/uncommitted.diff", "# left out: video.raw (9 bytes)\n"), "video.raw (9 bytes)"),
        (lambda one: one.send("lineage/uncommitted.diff", "no diff\n"), "uncommitted.diff does not apply to commit"),
        (lambda one: one.client.set_terminated(one.run, "FAILED"), "is FAILED: it has no result"),
        (lambda one: one.client.set_terminated(one.run, "KILLED"), "is KILLED"),
        (lambda one: one.forget("lineage/params.yaml"), "params.yaml: it was not made by the stage train"),
    ],
)  # fmt: skip
def test_what_cannot_be_rebuilt_is_2_with_the_reason(checkout, monkeypatch, capsys, spoil, said) -> None:
    played(monkeypatch, checkout, 0.9)
    spoil(checkout)
    assert cli.main(["verify"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("stillframe: cannot be rebuilt: ") and said in error
    assert list((checkout.folder / ".work").iterdir()) == []


def test_runs_that_are_not_there(checkout, monkeypatch, capsys) -> None:
    assert cli.main(["verify", "0" * 32]) == 2
    assert f"run {'0' * 32}: " in capsys.readouterr().err
    write_json(checkout.folder / "artifacts/train/run.json", {"run_id": None, "tracking_uri": checkout.store})
    with pytest.raises(SystemExit, match="`stillframe sync`, then name the run"):
        cli.main(["verify"])


def test_a_trial_whose_training_was_cached_names_the_way(checkout, monkeypatch, capsys) -> None:
    checkout.tag("stillframe.trial", "3")
    checkout.forget("lineage/params.yaml")
    assert cli.main(["verify"]) == 2
    assert "its training came from DVC's cache: verify the run that trained" in capsys.readouterr().err


def test_a_stage_that_fails_is_told_with_its_last_lines(checkout, monkeypatch, capsys) -> None:
    """The real `dvc repro`, in a clone whose only stage fails."""
    (checkout.folder / "dvc.yaml").write_text(
        "stages:\n  train:\n    cmd: echo out of luck && exit 3\n    outs: [artifacts/x]\n", encoding="utf-8"
    )
    shell(checkout.folder, "dvc", "init", "-q", "-f")
    commit(checkout.folder, "a stage that fails")
    checkout.tag("mlflow.source.git.commit", shell(checkout.folder, "git", "rev-parse", "HEAD").strip())
    checkout.send("lineage/dvc.lock", "schema: '2.0'\nstages: {}\n")
    assert cli.main(["verify"]) == 2
    said = capsys.readouterr().err
    assert "the rebuild failed:" in said and "out of luck" in said
