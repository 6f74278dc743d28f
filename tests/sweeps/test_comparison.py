"""The page about a sweep, and promotion, on made sweep folders."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from stillframe.paths import write_json
from stillframe.store.split import SplitWriter
from stillframe.sweeps import promote
from stillframe.sweeps import run as door
from stillframe.sweeps.comparison import originals, write_page
from stillframe.sweeps.comparison.candidates import SweepComparison, settings, short_names
from stillframe.sweeps.comparison.importance import importance
from stillframe.sweeps.comparison.page import table
from stillframe.sweeps.store import Repeat, Sweep, Trial, find_sweep
from stillframe.types import DatasetCard
from tiny import LABEL

IMAGES = 200
CLASSES = ["ant", "<b>bee</b>", "cat"]


def made_sweep(folder: Path, **facts: Any) -> Sweep:
    """An empty sweep named `made` in folder/sweeps."""
    known = {
        "name": "made",
        "root": str(folder),
        "command": "python -m stillframe.sweep -m model=a,b",
        "head": "0" * 40,
        "commit": "0" * 40,
        "task": "classification",
        "objectives": ["val/accuracy"],
        "directions": ["maximize"],
        "seeds": 1,
        "folds": 0,
        "repeats": 1,
        "tracking_uri": f"sqlite:///{folder / 'mlflow.db'}",
        "started": 1.7e9,
        "parent_run": "parent",
        "state": "finished",
    }
    return Sweep(folder / "sweeps/made", known | facts).write()


def labels(split: int) -> np.ndarray:
    return np.random.default_rng(split).choice(3, IMAGES, p=[0.5, 0.3, 0.2])


def add(
    sweep: Sweep,
    number: int,
    overrides: list[str],
    wrong: list[int],
    *,
    split: list[int] | None = None,
    test: float = 0.5,
    size: float = 1000.0,
    **facts: Any,
) -> Trial:
    """A finished trial that gets the first `wrong[k]` images of its k-th run wrong (val split `split[k]`)."""
    repeats = []
    for at, count in enumerate(wrong):
        which = split[at] if split else 0
        label = labels(which)
        said = label.copy()
        said[:count] = (said[:count] + 1) % 3
        path = sweep.trial_folder(number) / f"r{at}"
        path.mkdir(parents=True)
        rows = {"index": np.arange(IMAGES), "id": [f"{which}/{row:03d}.png" for row in range(IMAGES)]}
        rows |= {"label": label, "predicted": said, "confidence": np.linspace(0.99, 0.4, IMAGES)}
        pd.DataFrame(rows).to_parquet(path / "val_predictions.parquet", index=False)
        data = {"name": "insects", "path": None, "val_fraction": 0.2, "test_fraction": 0.2}
        (path / "params.yaml").write_text(yaml.safe_dump({"task": "classification", "data": data}), encoding="utf-8")
        metrics = {"val/accuracy": 1 - count / IMAGES, "test/accuracy": test}
        metrics |= {"train/seconds": 10.0 + number, "train/parameters": size}
        run = Repeat(at, at, None, "finished", f"run{number}", f"made-{number:04d}-r{at}", "f" * 40, metrics)
        repeats.append(run)
    values = [float(np.mean([run.metrics["val/accuracy"] for run in repeats]))]
    return sweep.save(Trial(number, overrides, "finished", values, repeats, **facts))


def grid(sweep: Sweep) -> Sweep:
    """Four trials: the model decides, the rate hardly; and one that failed."""
    for number, (model, rate, wrong) in enumerate(
        [("a", "1e-2", 10), ("a", "1e-3", 11), ("b", "1e-2", 60), ("b", "1e-3", 62)]
    ):
        size = 900.0 if number == 1 else 1000.0
        add(sweep, number, ["seed=3", f"model={model}", f"optim.lr={rate}"], [wrong], test=0.1 * number, size=size)
    words = ["seed=3", "model=c", "optim.lr=1e-2"]
    sweep.save(Trial(4, words, "failed", error="Traceback\n" + " ".join(words) + ": model.name = 'c' <is> not there"))
    return sweep


def text(sweep: Sweep) -> str:
    """The page's words."""
    page = write_page.write(sweep)[0].read_text(encoding="utf-8")
    assert "<script" not in page and not re.search(r"(src|href)=\"https?:", page), "self-contained"
    body = re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", body))


def test_the_page_ranks_by_validation_and_says_what_is_beyond_chance(tmp_path: Path) -> None:
    sweep = grid(made_sweep(tmp_path))
    shown = text(sweep)
    findings = SweepComparison(sweep)
    assert [one.trial.number for one in findings.ranked] == [0, 1, 2, 3], "the test scores say the reverse"
    assert [one.verdict for one in findings.ranked] == ["best", "no difference shown", "worse", "worse"]
    assert "Best of 4: trial 0, model=a lr=0.01: Accuracy on validation 95.0" in shown
    assert "Better, beyond chance, than 2 of the 3 others; from 1 no difference is shown." in shown
    assert "trial 1 (model=a lr=0.001) costs least: 900 parameters" in shown
    assert "Choosing by it would spend it" in shown
    assert "failed model=c lr=0.01 model.name = &#39;c&#39; &lt;is&gt; not there" in shown
    assert "stillframe promote 0 --sweep made" in shown


def test_the_files_beside_the_page(tmp_path: Path) -> None:
    sweep = grid(made_sweep(tmp_path))
    written = write_page.write(sweep)
    assert [path.name for path in written] == [
        "compare.html",
        "table.csv",
        "parallel_coordinates.png",
        "importance.png",
    ]
    listed = pd.read_csv(sweep.folder / "table.csv")
    assert listed["trial"].tolist() == [0, 1, 2, 3, 4] and listed["state"].tolist()[-1] == "failed"
    first = listed.iloc[0]
    assert first["model"] == "a" and first["optim.lr"] == 0.01 and first["val/accuracy"] == 0.95
    assert listed["gap"].iloc[2] == pytest.approx(-0.25) and listed["gap_high"].iloc[2] < 0
    before = [path.read_bytes() for path in written]
    assert [path.read_bytes() for path in write_page.write(sweep)] == before, "the same sweep, the same page"


def test_repeats_over_one_split_are_not_corrected(tmp_path: Path) -> None:
    sweep = made_sweep(tmp_path, seeds=3, repeats=3)
    add(sweep, 0, ["model=a"], [10, 12, 11])
    add(sweep, 1, ["model=b"], [20, 23, 21])
    findings = SweepComparison(sweep)
    assert findings.overlap == 0.0
    assert findings.ranked[1].verdict == "worse" and findings.ranked[1].gap.how == "repeats"
    assert "mean of 3 runs" in text(sweep) and "Nadeau" not in text(sweep)


def test_repeats_that_draw_other_splits_are_corrected(tmp_path: Path) -> None:
    sweep = made_sweep(tmp_path, seeds=2, repeats=2)
    add(sweep, 0, ["model=a"], [10, 14], split=[0, 1])
    add(sweep, 1, ["model=b"], [20, 25], split=[0, 1])
    assert SweepComparison(sweep).overlap == pytest.approx(0.2 / 0.6)
    assert "Nadeau and Bengio" in text(sweep)
    folds = made_sweep(tmp_path / "folds", folds=2, repeats=2)
    add(folds, 0, ["model=a"], [10, 14], split=[0, 1])
    assert SweepComparison(folds).overlap == 1.0


def test_other_images_cannot_be_compared(tmp_path: Path) -> None:
    sweep = made_sweep(tmp_path)
    add(sweep, 0, ["data.val_fraction=0.1"], [10])
    add(sweep, 1, ["data.val_fraction=0.2"], [60], split=[1])
    assert SweepComparison(sweep).ranked[1].verdict == "not comparable"
    assert "validated on different images" in text(sweep)


def test_an_objective_without_an_interval_claims_nothing(tmp_path: Path) -> None:
    sweep = made_sweep(tmp_path, objectives=["train/parameters"], directions=["minimize"])
    for number, size in enumerate((1000.0, 10.0)):
        add(sweep, number, [f"model={number}"], [10], size=size)
        trial = sweep.trial(number)
        assert trial is not None
        sweep.save(Trial(**{**vars(trial), "values": [size]}))
    findings = SweepComparison(sweep)
    assert [one.trial.number for one in findings.ranked] == [1, 0]
    assert findings.ranked[1].verdict == "no difference shown"
    assert "Parameters 10" in text(sweep)


def test_importance_finds_what_mattered(tmp_path: Path) -> None:
    shares, note = importance(SweepComparison(grid(made_sweep(tmp_path))))
    assert next(iter(shares)) == "model" and shares["model"] > 0.7 and note == ""
    assert sum(shares.values()) == pytest.approx(1)
    few = made_sweep(tmp_path / "few")
    add(few, 0, ["model=a"], [10])
    add(few, 1, ["model=b"], [60])
    assert importance(SweepComparison(few)) == (
        {},
        "2 finished trials are too few to share the effect out (4 or more).",
    )


def test_a_conditional_parameter_is_left_out_of_the_importances(tmp_path: Path) -> None:
    sweep = made_sweep(tmp_path)
    for number, words in enumerate((["model=a", "rate=0.1"], ["model=a", "rate=0.2"], ["model=b"], ["model=b"])):
        add(sweep, number, words, [10 + 5 * number])
    shares, note = importance(SweepComparison(sweep))
    assert list(shares) == ["model"] and "rate" in note
    assert "model=b" in text(sweep)


def test_names_of_settings() -> None:
    assert settings(["+a.b=1", "~c", "d=[1,2]=3"]) == {"a.b": "1", "c": "(removed)", "d": "[1,2]=3"}
    assert short_names(["optim.lr", "model.rate", "data.rate"]) == {
        "optim.lr": "lr",
        "model.rate": "model.rate",
        "data.rate": "data.rate",
    }


def prepared(folder: Path, first: int = 0) -> None:
    """data/prepared whose val split has the images that the made trials were validated on, from row `first` on."""
    with SplitWriter(folder / "val", height=4, width=4, channels=1, encoding="raw", targets=[LABEL]) as writer:
        label = labels(0)
        for row in range(IMAGES):
            values = {"id": f"0/{row + first:03d}.png", "label": int(label[row]), "weight": 1.0, "group": str(row)}
            values |= {
                "source_id": values["id"],
                "source_width": 4,
                "source_height": 4,
                "source_mode": "L",
                "slices": "{}",
            }
            writer.write([{**values, "image": bytes([row]) * 16}])
    DatasetCard("insects", CLASSES, {}, 1, 4, 4, [0.5], [0.2], [], "0" * 64).write(folder / "card.json")


def test_the_images_on_which_they_disagree(tmp_path: Path) -> None:
    sweep = grid(made_sweep(tmp_path))
    shown = text(sweep)
    assert "neither DVC's cache nor a checkout".replace("'", "&#39;") in shown
    assert "0/000.png" not in shown, "all four are wrong about it: no disagreement"
    assert "0/010.png" in shown and "different answers to 52 of 200" in shown
    prepared(tmp_path / "data/prepared")
    page = write_page.write(sweep)[0].read_text(encoding="utf-8")
    assert page.count('class="tiny"') == 24 and "neither" not in page
    assert "&lt;b&gt;bee&lt;/b&gt;" in page and "<b>bee</b>" not in page


def test_pictures_from_the_cache_by_the_hashes_in_the_trials_commit(checkout: tuple[Path, Sweep]) -> None:
    """The slots may hold another split by now; the cache has every one."""
    folder, sweep = checkout
    prepared(folder / "made")
    listed = []
    for path in [path for path in (folder / "made").rglob("*") if path.is_file()]:
        digest = hashlib.md5(path.read_bytes()).hexdigest()
        listed.append({"md5": digest, "relpath": str(path.relative_to(folder / "made"))})
        cached = folder / ".dvc/cache/files/md5" / digest[:2] / digest[2:]
        cached.parent.mkdir(parents=True, exist_ok=True)
        path.rename(cached)
    write_json(folder / ".dvc/cache/files/md5/ab/c.dir", listed)
    lock = {"stages": {"preprocess": {"outs": [{"path": "data/prepared", "md5": "abc.dir"}]}}}
    (folder / "dvc.lock").write_text(yaml.safe_dump(lock), encoding="utf-8")
    git(folder, "add", "dvc.lock")
    git(folder, "commit", "-qm", "lock")
    one = Repeat(**{**vars(sweep.trials()[0].repeats[0]), "commit": git(folder, "rev-parse", "HEAD")})
    rows = SweepComparison(sweep).answers(sweep.trials()[0], 0)
    assert rows is not None
    with originals.prepared_folders(sweep, one) as folders:
        split = originals.holds(folders[0], rows)
        assert split is not None and split.images([7])[0, 0, 0] == 7
        assert originals.class_names(folders, 3) == CLASSES
    with originals.prepared_folders(sweep, sweep.trials()[0].repeats[0]) as folders:
        assert all(originals.holds(at, rows) is None for at in folders)
        assert originals.class_names(folders, 3) == ["0", "1", "2"]


def test_pictures_of_another_split_are_not_shown(tmp_path: Path) -> None:
    prepared(tmp_path / ".work/sweep/slot-0/data/prepared", first=1)
    assert "neither DVC&#39;s cache" in text(grid(made_sweep(tmp_path)))


def test_a_sweep_in_which_nothing_finished(tmp_path: Path) -> None:
    sweep = made_sweep(tmp_path)
    with pytest.raises(ValueError, match="no trial has begun"):
        write_page.write(sweep)
    sweep.save(Trial(0, ["model=a"], "failed", error="out of memory"))
    assert [path.name for path in write_page.write(sweep)] == ["compare.html", "table.csv"]
    shown = text(sweep)
    assert "No trial of this sweep has finished." in shown and "out of memory" in shown


def test_a_single_trial_and_trials_without_predictions(tmp_path: Path) -> None:
    sweep = made_sweep(tmp_path)
    add(sweep, 0, ["model=a"], [10])
    assert "There is no other finished trial" in text(sweep)
    add(sweep, 1, ["model=b"], [60])
    for path in sweep.folder.glob("trials/*/r0/val_predictions.parquet"):
        path.unlink()
    assert [one.verdict for one in SweepComparison(sweep).ranked] == ["best", "not comparable"]
    assert "1 cannot be compared" in text(sweep)


def test_the_end_of_a_sweep_never_fails_for_its_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = grid(made_sweep(tmp_path))
    assert [path.name for path in door.comparison_page(sweep)][0] == "compare.html"

    def fails(sweep: Sweep) -> list[Path]:
        raise RuntimeError("no font")

    monkeypatch.setattr(write_page, "write", fails)
    assert door.comparison_page(sweep) == []
    assert "no compare.html: RuntimeError: no font" in capsys.readouterr().err


def test_finding_a_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    sweep = made_sweep(tmp_path)
    for name in (None, "made", "sweeps/made", str(sweep.folder)):
        assert find_sweep(name).folder == sweep.folder
    with pytest.raises(FileNotFoundError, match="there are made"):
        find_sweep("other")


def git(folder: Path, *words: str) -> str:
    env = {**os.environ, "GIT_AUTHOR_NAME": "n", "GIT_AUTHOR_EMAIL": "e", "GIT_COMMITTER_NAME": "n"}
    env |= {"GIT_COMMITTER_EMAIL": "e", "GIT_CONFIG_GLOBAL": "/dev/null"}
    command = ["git", "-C", str(folder), *words]
    return subprocess.run(command, check=True, capture_output=True, text=True, env=env).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Sweep]:
    """A DVC repository with a sweep of one trial, which changed params.yaml, and its experiment."""
    monkeypatch.chdir(tmp_path)
    git(tmp_path, "init", "-q", "-b", "main")
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q"], cwd=tmp_path, check=True)
    (tmp_path / "params.yaml").write_text("seed: 0\n", encoding="utf-8")
    (tmp_path / "code.py").write_text("one\n", encoding="utf-8")
    (tmp_path / ".gitignore").write_text("/sweeps\n/mlflow*\n/mlruns\n/artifacts\n/data\n", encoding="utf-8")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-qm", "start")
    head = git(tmp_path, "rev-parse", "HEAD")
    (tmp_path / "params.yaml").write_text("seed: 1\n", encoding="utf-8")
    git(tmp_path, "commit", "-qam", "trial")
    commit = git(tmp_path, "rev-parse", "HEAD")
    git(tmp_path, "update-ref", f"refs/exps/{head[:2]}/{head[2:]}/made-0000-r0", commit)
    git(tmp_path, "reset", "-q", "--hard", head)
    sweep = made_sweep(tmp_path, head=head, commit=head)
    trial = add(sweep, 0, ["seed=1"], [10])
    run = Repeat(**{**vars(trial.repeats[0]), "commit": commit})
    sweep.save(Trial(**{**vars(trial), "repeats": [run]}))
    return tmp_path, sweep


def test_promote_refuses_to_overwrite_edits(checkout: tuple[Path, Sweep]) -> None:
    folder, sweep = checkout
    (folder / "params.yaml").write_text("seed: 7\n", encoding="utf-8")
    (folder / "notes.txt").write_text("mine\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"would be overwritten: params\.yaml: commit them"):
        promote.promote(sweep, "0", 0, None)
    assert (folder / "params.yaml").read_text(encoding="utf-8") == "seed: 7\n"
    git(folder, "add", "params.yaml")
    with pytest.raises(ValueError, match=r"would be overwritten: params\.yaml"):
        promote.promote(sweep, "0", 0, None)
    (folder / "params.yaml").write_text("seed: 1\n", encoding="utf-8")  # what the trial has
    promote.check(folder, sweep, sweep.trials()[0].repeats[0])


def test_promote_refuses_when_the_code_has_moved_on(checkout: tuple[Path, Sweep]) -> None:
    folder, sweep = checkout
    (folder / "code.py").write_text("two\n", encoding="utf-8")
    git(folder, "commit", "-qam", "later")
    with pytest.raises(ValueError, match=r"1 files were committed since the sweep began \(code\.py\)"):
        promote.promote(sweep, "0", 0, None)


def test_promote_refuses_trials_that_are_not_there(checkout: tuple[Path, Sweep]) -> None:
    folder, sweep = checkout
    sweep.save(Trial(1, ["seed=2"], "failed", error="first\nout of memory"))
    with pytest.raises(ValueError, match="9: no such trial of sweep made: finished are 0"):
        promote.choose(sweep, "9", 0)
    with pytest.raises(ValueError, match="has not finished \\(failed\\): out of memory"):
        promote.choose(sweep, "1", 0)
    with pytest.raises(ValueError, match="repeat 1"):
        promote.choose(sweep, "0", 1)
    assert promote.choose(sweep, "best", 0)[0].number == 0


@pytest.mark.slow
def test_promote_applies_and_registers(checkout: tuple[Path, Sweep]) -> None:
    """The trial's own run has no model (its training came from the cache): the run in run.json has it."""
    from mlflow import MlflowClient

    folder, sweep = checkout
    tracking = {"uri": None, "experiment": "stillframe", "timeout_s": 5.0, "flush_s": 5.0}
    client = MlflowClient(sweep.facts["tracking_uri"])
    place = client.create_experiment("stillframe", artifact_location=(folder / "mlruns").as_uri())
    own, trained = (client.create_run(place).info.run_id for _ in range(2))
    for name in ("model.safetensors", "model.json"):
        path = folder / "artifacts/train" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name, encoding="utf-8")
        client.log_artifact(trained, str(path), "model")
    write_json(folder / "artifacts/train/run.json", {"run_id": trained})
    trial = sweep.trials()[0]
    run = Repeat(**{**vars(trial.repeats[0]), "run_id": own})
    sweep.save(Trial(**{**vars(trial), "repeats": [run]}))
    params = sweep.trial_folder(0) / "r0/params.yaml"
    values = yaml.safe_load(params.read_text(encoding="utf-8"))
    params.write_text(yaml.safe_dump({**values, "tracking": tracking}), encoding="utf-8")
    (folder / "notes.txt").write_text("mine\n", encoding="utf-8")

    _, model, version = promote.promote(sweep, "0", 0, None)
    assert (model, version) == ("insects", "1")
    assert (folder / "params.yaml").read_text(encoding="utf-8") == "seed: 1\n"
    assert (folder / "notes.txt").read_text(encoding="utf-8") == "mine\n"
    found = client.get_model_version("insects", "1")
    assert found.run_id == trained and found.source.endswith(f"{trained}/artifacts/model")
    assert found.tags["stillframe.trial"] == "0" and found.tags["stillframe.run"] == own
    assert found.tags["val/accuracy"] == "0.95"
    assert promote.promote(sweep, "best", 0, None)[1:] == ("insects", "1"), "once is enough"


def test_the_table_has_every_trial(tmp_path: Path) -> None:
    assert len(table(SweepComparison(grid(made_sweep(tmp_path))))) == 5
