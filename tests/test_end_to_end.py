"""The whole way of the data through the user's door: `dvc repro` and `dvc exp run` on a folder of made photographs."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from PIL import Image

from door import CLASSES, ROOT, STAGES, checkout, commit, environment, photographs, ran, shell
from tiny import picture

EVERY_STEP = ("early_stopping: null}", "early_stopping: null, checkpoint_seconds: 1.0e-6}")
pytestmark = pytest.mark.slow


def digests(folder: Path) -> dict[str, str]:
    """Path -> sha256 of all files under a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def read(path: Path) -> Any:
    text = path.read_text(encoding="utf-8")
    return json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)


def runs_of(folder: Path) -> list[Any]:
    """All MLflow runs in a project's store, oldest first."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("stillframe")
    return client.search_runs([experiment.experiment_id], order_by=["attributes.start_time"])


class Finished:
    """A project after its first `dvc repro`, from nothing; tests look at it, or work on a copy of it."""

    def __init__(self, folder: Path) -> None:
        self.images = photographs(folder / "my photographs")
        self.before = digests(self.images)
        self.folder = checkout(folder / "project", self.images)
        self.output = shell(self.folder, "dvc", "repro")
        commit(self.folder, "first run")

    def copy(self, to: Path) -> Path:
        return Path(shutil.copytree(self.folder, to / "project", symlinks=True))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return Finished(tmp_path_factory.mktemp("end"))


@pytest.fixture
def project(finished: Finished, tmp_path: Path) -> Path:
    return finished.copy(tmp_path)


# --- one `dvc repro` from nothing ----------------------------------------------------------------------------------


def test_one_repro_runs_all_stages_in_their_order(finished: Finished) -> None:
    started = re.findall(r"Running stage '(\w+)'", finished.output)
    assert started == STAGES
    assert set(digests(finished.folder / "artifacts/train")) == {
        *("model.safetensors", "model.json", "history.csv", "run.json", "summary.json")
    }
    scores = read(finished.folder / "artifacts/evaluate/metrics.json")
    names = {f"{kind}/{name}" for kind in ("recall", "precision", "f1") for name in CLASSES}
    assert {"accuracy", "f1_macro", "auroc", "ece", *names} <= set(scores)
    card = read(finished.folder / "data/prepared/card.json")
    assert card["classes"] == sorted(CLASSES)
    assert sum(sum(split.values()) for split in card["counts"].values()) == sum(CLASSES.values())
    assert not list((finished.folder / ".resume").glob("*/last.ckpt")), "a finished training leaves no state"


def test_the_report_needs_nothing_from_elsewhere(finished: Finished) -> None:
    page = (finished.folder / "artifacts/report/report.html").read_text(encoding="utf-8")
    assert all(name in page for name in CLASSES)
    wanted = re.findall(
        r"""(?:src|href|action|data|poster)\s*=\s*["']?([^"'\s>]+)|url\(([^)]*)\)|@import (\S+)""", page
    )
    elsewhere = [target for found in wanted for target in found if target and not target.startswith(("data:", "#"))]
    assert not elsewhere


def test_the_users_folder_is_as_it_was_and_nothing_of_the_demo_came(finished: Finished) -> None:
    assert digests(finished.images) == finished.before
    assert os.readlink(finished.folder / "data/source") == str(finished.images)
    assert read(finished.folder / "data/raw/source.json") == {"path": str(finished.images)}
    assert list(digests(finished.folder / "data/raw")) == ["source.json"]
    assert shell(finished.folder, "git", "status", "--short") == ""


def test_a_second_repro_runs_no_stage(project: Path) -> None:
    before = digests(project / "artifacts")
    assert ran(shell(project, "dvc", "repro")) == []
    assert digests(project / "artifacts") == before
    assert shell(project, "git", "status", "--short") == ""


# --- the record ----------------------------------------------------------------------------------------------------


def test_the_run_and_the_outputs_name_each_other(finished: Finished) -> None:
    (run,) = runs_of(finished.folder)
    facts = read(finished.folder / "artifacts/train/run.json")
    start = shell(finished.folder, "git", "rev-parse", "HEAD~1").strip()
    assert facts["run_id"] == run.info.run_id and run.info.status == "FINISHED"
    assert facts["git_commit"] == run.data.tags["mlflow.source.git.commit"] == start
    lock = read(finished.folder / "dvc.lock")["stages"]
    for stage, block in lock.items():
        if stage == "report":
            continue  # it is what sends these
        for out in block["outs"]:
            assert run.data.tags[f"dvc.{stage}/outs/{out['path']}"] == out["md5"]
    source = next(dep for dep in lock["preprocess"]["deps"] if dep["path"] == "data/source")
    assert run.data.tags["dvc.preprocess/deps/data/source"] == source["md5"]
    assert {data.dataset.name for data in run.inputs.dataset_inputs} == {
        f"folder/{s}" for s in ("train", "val", "test")
    }


def test_the_run_holds_parameters_scores_and_the_page(finished: Finished) -> None:
    (run,) = runs_of(finished.folder)
    assert run.data.params["data.path"] == str(finished.images)
    assert run.data.params["optim.lr"] == "0.001" and run.data.params["seed"] == "0"
    for split, stage in (("val", "validate"), ("test", "evaluate")):
        scores = read(finished.folder / f"artifacts/{stage}/metrics.json")
        for name in ("accuracy", "f1_macro", *(f"recall/{label}" for label in CLASSES)):
            assert run.data.metrics[f"{split}/{name}"] == pytest.approx(scores[name], abs=1e-12)
    assert "train/loss" in run.data.metrics
    stored = Path(run.info.artifact_uri.removeprefix("file://"))
    page = finished.folder / "artifacts/report/report.html"
    assert (stored / "report/report.html").read_bytes() == page.read_bytes()
    weights = finished.folder / "artifacts/train/model.safetensors"
    assert (stored / "model/model.safetensors").read_bytes() == weights.read_bytes()


# --- changes -------------------------------------------------------------------------------------------------------


def test_an_experiment_reaches_the_stages_and_is_compared(project: Path) -> None:
    """A group swap, a value, and another augmentation: what reads them runs, what does not is left alone."""
    overrides = ("model=textbook_cnn", "augment=upright", "optim.lr=0.004", "trainer.max_epochs=1")
    words = [word for override in overrides for word in ("-S", override)]
    output = shell(project, "dvc", "exp", "run", "-n", "other-net", *words)
    assert ran(output) == ["compose", *STAGES[STAGES.index("augment") :]]
    assert read(project / "artifacts/train/model.json")["name"] == "textbook_cnn"
    run = runs_of(project)[-1]
    assert len(runs_of(project)) == 2
    assert (run.data.params["model.name"], run.data.params["optim.lr"]) == ("textbook_cnn", "0.004")
    assert read(project / "artifacts/train/run.json")["run_id"] == run.info.run_id
    changes = json.loads(shell(project, "dvc", "metrics", "diff", "--all", "--json"))
    assert {"old", "new", "diff"} <= set(changes["artifacts/evaluate/metrics.json"]["f1_macro"])
    shown = list(csv.DictReader(io.StringIO(shell(project, "dvc", "exp", "show", "--csv"))))
    (row,) = [row for row in shown if "other-net" in row.values()]
    scores = read(project / "artifacts/evaluate/metrics.json")
    assert float(row["artifacts/evaluate/metrics.json:accuracy"]) == pytest.approx(scores["accuracy"], abs=1e-4)
    shell(project, "dvc", "plots", "diff", "HEAD", "workspace", "-o", "plots")
    page = (project / "plots/index.html").read_text(encoding="utf-8")
    assert "Loss by epoch" in page and "Confusion, test split" in page


def test_what_changes_runs_what_depends_on_it_and_no_more(project: Path, finished: Finished) -> None:
    images = shutil.copytree(finished.images, project.parent / "photographs")
    before = digests(project / "artifacts")

    helper = project / "src/stillframe/inference/split_predictor.py"
    helper.write_text(helper.read_text(encoding="utf-8") + "# a comment\n", encoding="utf-8")
    assert ran(shell(project, "dvc", "repro")) == ["compose", "validate", "evaluate"], "those that import it"
    changed = [name for name, digest in digests(project / "artifacts").items() if digest != before[name]]
    assert changed == ["code/evaluate.json", "code/validate.json"], (
        "the same results, to the byte: nothing after it had to run"
    )

    prepared = project / "data/prepared/train/data-00000-of-00001.arrow"
    whole = prepared.read_bytes()
    prepared.chmod(0o644)
    prepared.unlink()
    prepared.write_bytes(whole[:-100] + bytes(100))
    assert ran(shell(project, "dvc", "repro")) == []
    assert prepared.read_bytes() == whole, "a changed file of the DAG is put back"

    edit(project / "conf/config.yaml", str(finished.images), str(images))
    assert ran(shell(project, "dvc", "repro", "preprocess")) == ["compose", "fetch", "preprocess"]
    Image.fromarray(picture(77_777, width=36, height=32)).save(images / "stone" / "new.png")
    assert ran(shell(project, "dvc", "repro", "preprocess")) == ["preprocess"]
    counts = read(project / "data/prepared/card.json")["counts"]
    assert sum(split["stone"] for split in counts.values()) == CLASSES["stone"] + 1


def test_a_bad_model_never_meets_the_test_split(project: Path, finished: Finished) -> None:
    edit(project / "conf/validate/default.yaml", "require: {}", "require: {f1_macro: 1.5}")
    score = read(project / "artifacts/validate/metrics.json")["f1_macro"]
    output = shell(project, "dvc", "repro", fails=True)
    assert ran(output) == ["compose", "validate"]
    assert re.search(rf"f1_macro: {score:.3f}\d*, at least 1.5 is required", output)
    assert "Traceback" not in output
    (run,) = runs_of(finished.folder)  # the copy's run.json names the store that the run is in
    assert run.data.tags["stillframe.bar"] == "failed"


# --- interruptions -------------------------------------------------------------------------------------------------


class Repro:
    """A `dvc repro` under way, with its train process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.said = (folder.parent / "said.txt").open("w+", encoding="utf-8")
        self.process = subprocess.Popen(
            ["dvc", "repro"],
            cwd=folder,
            env=environment(folder),
            stdout=self.said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def output(self) -> str:
        return Path(self.said.name).read_text(encoding="utf-8")

    def wait_until(self, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 200
        while not ready():
            assert self.process.poll() is None and time.monotonic() < deadline, self.output()
            time.sleep(0.005)

    def train(self) -> psutil.Process:
        """The process of the stage (not the shell that DVC starts it with)."""
        family = psutil.Process(self.process.pid).children(recursive=True)
        (found,) = [one for one in family if one.cmdline()[1:] == ["-m", "stillframe.stages.train"]]
        return found

    def end(self) -> int:
        code = self.process.wait(timeout=200)
        self.said.close()
        return code

    def __enter__(self) -> Repro:
        return self

    def __exit__(self, *problem: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.said.close()


def written(folder: Path) -> int:
    """When the newest checkpoint was written, ns; 0 when there is none."""
    times = [0]
    for path in (folder / ".resume").glob("*/last.ckpt"):
        with contextlib.suppress(FileNotFoundError):
            times.append(path.stat().st_mtime_ns)
    return max(times)


def interrupt(folder: Path, signum: signal.Signals) -> str:
    """`dvc repro` until the training has gone on by a checkpoint; then `signum` to the training."""
    before = written(folder)
    with Repro(folder) as repro:
        repro.wait_until(lambda: written(folder) > before)
        repro.train().send_signal(signum)
        assert repro.end() != 0, "it ended before it could be stopped"
        return repro.output()


def test_a_training_that_is_killed_and_stopped_ends_as_the_one_that_never_was(
    finished: Finished, tmp_path: Path
) -> None:
    """In a second checkout, without the first one's cache: also the same bytes from nothing."""
    project = tmp_path / "project"
    shell(tmp_path, "git", "clone", "-q", str(finished.folder), "project")
    shell(project, "git", "checkout", "-q", "HEAD~1")
    (project / ".git/info/exclude").write_text("/.site\n", encoding="utf-8")
    edit(project / "conf/config.yaml", *EVERY_STEP)

    output = interrupt(project, signal.SIGKILL)
    assert ran(output) == STAGES[: STAGES.index("train") + 1]
    shell(project, "git", "add", "-A")
    added = set(shell(project, "git", "diff", "--cached", "--name-only").split())
    assert added == {"dvc.lock", "params.yaml", "conf/config.yaml"}, "no data"

    output = interrupt(project, signal.SIGTERM)
    assert "`dvc repro` resumes" in output and ran(output) == ["train"]
    assert "train" not in read(project / "dvc.lock")["stages"], "a half-trained model is nobody's result"
    (run,) = runs_of(project)
    assert run.info.status == "KILLED"

    output = shell(project, "dvc", "repro")
    assert "resuming from" in output and ran(output) == STAGES[STAGES.index("train") :]
    (again,) = runs_of(project)
    assert again.info.run_id == run.info.run_id == read(project / "artifacts/train/run.json")["run_id"]
    assert again.info.status == "FINISHED"
    for name in ("train/model.safetensors", "train/history.csv", "validate/metrics.json", "evaluate/metrics.json"):
        ours, theirs = (folder / "artifacts" / name for folder in (project, finished.folder))
        assert ours.read_bytes() == theirs.read_bytes(), name
    cards = [read(folder / "data/prepared/card.json") for folder in (project, finished.folder)]
    assert cards[0] == cards[1] and len(cards[0]["split_hash"]) == 64


def test_a_run_is_rebuilt_from_its_record(project: Path, finished: Finished) -> None:
    """One metric of the record is a lie, and the rebuild finds that one and nothing else."""
    from mlflow import MlflowClient

    (run,) = runs_of(finished.folder)
    client = MlflowClient(f"sqlite:///{finished.folder / 'mlflow.db'}")
    client.log_metric(run.info.run_id, "test/accuracy", 2.0)
    try:
        output = shell(project, "stillframe", "verify", fails=True)
    finally:
        client.log_metric(run.info.run_id, "test/accuracy", run.data.metrics["test/accuracy"])
    facts = read(project / f"artifacts/verify/{run.info.run_id}.json")
    assert [(one["name"], one["recorded"]) for one in facts["results"]] == [("test/accuracy", "2.0")], output
    assert float(facts["results"][0]["rebuilt"]) == run.data.metrics["test/accuracy"]
    assert facts["surroundings"] == [] and facts["compared"]["files"] >= 9 and facts["compared"]["metrics"] > 40
    assert "data/raw, data/prepared, data/augmented; the rest runs again" in output
    assert len(runs_of(finished.folder)) == 1, "the user's store has no run of it"


def test_no_file_of_the_way_is_a_pickle(finished: Finished) -> None:
    """What the stages keep, and what MLflow holds of it: no pickle, and no zip with one inside."""
    import zipfile

    kept = [path for place in ("artifacts", "data", "mlruns") for path in (finished.folder / place).rglob("*")]
    files = [path for path in kept if path.is_file()]
    assert {".safetensors", ".parquet", ".arrow", ".json"} <= {path.suffix for path in files}
    for path in files:
        head = path.read_bytes()[:2]
        assert not (head[:1] == b"\x80" and head[1:] in (b"\x02", b"\x03", b"\x04", b"\x05")), path
        if zipfile.is_zipfile(path):
            assert not [name for name in zipfile.ZipFile(path).namelist() if name.endswith(".pkl")], path


def test_the_comment_of_a_pull_request(project: Path) -> None:
    """docs/ci/comment.sh against the commit before the first run, which has no score."""
    (project / "gate.txt").write_text("champion.f1_macro passed\n", encoding="utf-8")
    text = shell(project, "sh", str(ROOT / "docs/ci/comment.sh"), "HEAD~1")
    assert re.search(r"^\| artifacts/evaluate/metrics.json +\| accuracy ", text, re.MULTILINE), text
    assert re.search(r"^\| params.yaml +\| trainer.max_epochs +\| 8 +\| 2 ", text, re.MULTILINE), text
    assert "champion.f1_macro passed" in text and "# Model card: folder" in text
    for picture_of in re.findall(r"!\[\w+\]\(\./([^)]+)\)", text):
        assert (project / picture_of).stat().st_size > 1000
    assert "## Scores against HEAD\n\nNothing changed." in shell(
        project, "sh", str(ROOT / "docs/ci/comment.sh"), "HEAD"
    )
