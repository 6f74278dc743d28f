"""`stillframe gate` through its door, on a real MLflow store: registered, compared, moved, given back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from checkouts import answers, write_export, write_run

import exported
from stillframe import cli
from stillframe.paths import read_json
from stillframe.registry.model_registry import Promotion, line_of
from stillframe.tracking import writer

RULES = {
    "champion": {"metric": "f1_macro", "least_gain": 0.0, "resamples": 1000, "not_comparable": "fail"},
    "every_class": {"recall": 0.3},
    "at_least": {},
    "at_most": {},
    "export": None,
    "slices": {"metric": "accuracy", "worse_by": 0.05, "least_images": 30},
}


class Door:
    """Runs of one checkout, and the command."""

    def __init__(self, folder: Path, store: str, client: Any, name: str) -> None:
        self.folder, self.store, self.client, self.name = folder, store, client, name
        self.place = client.get_experiment_by_name("stillframe").experiment_id
        (folder / "rules.yaml").write_text(yaml.safe_dump(RULES), encoding="utf-8")

    def train(self, *wrong: Any) -> str:
        """A run of the DAG whose model gets so many images wrong; the MLflow run."""
        run_id = str(self.client.create_run(self.place).info.run_id)
        write_run(self.folder, answers(*wrong), weights=run_id, run_id=run_id, tracking_uri=self.store)
        return run_id

    def gate(self, *words: str) -> int:
        """The command's exit code."""
        return cli.main(["gate", "--model", self.name, "--rules", "rules.yaml", *words])

    def champion(self) -> str | None:
        """The version with the alias."""
        found = self.client.get_registered_model(self.name).aliases.get("champion")
        return str(found) if found is not None else None


@pytest.fixture
def door(here: Path, store: str, client: Any, request: pytest.FixtureRequest) -> Door:
    return Door(here, store, client, request.node.name)


def test_the_first_model_passes_a_better_one_follows_a_worse_one_is_refused(door, capsys) -> None:
    first = door.train(60)
    assert door.gate() == 0 and door.champion() == "1"
    assert "no champion yet" in capsys.readouterr().out
    second = door.train(20)
    assert door.gate() == 0 and door.champion() == "2"
    assert "version 2: is the champion now" in capsys.readouterr().out
    third = door.train(50)
    assert door.gate() == 1 and door.champion() == "2", "the alias stays"
    said = capsys.readouterr().out
    assert "version 3: 2 rules failed" in said and "champion: version 2" in said

    runs = {str(one.version): one for one in door.client.search_model_versions(f"name = '{door.name}'")}
    assert [runs[key].run_id for key in "123"] == [first, second, third]
    assert runs["3"].tags["stillframe.gate"] == "failed: champion.f1_macro, slices.accuracy"
    assert runs["2"].tags["stillframe.gate"] == "passed" and runs["2"].source.endswith(f"{second}/artifacts/model")
    run = door.client.get_run(third)
    assert run.data.tags["stillframe.gate"] == runs["3"].tags["stillframe.gate"]
    measured = json.loads(run.data.tags["stillframe.gate.verdict"])
    assert measured["champion.f1_macro"][2] is False and " against " in measured["champion.f1_macro"][0]
    sent = Path(door.client.download_artifacts(third, "gate", str(door.folder)))
    (verdict,) = sent.glob("*/verdict.json")
    facts = read_json(verdict)
    assert facts == read_json(door.folder / "artifacts/gate/verdict.json")
    assert facts["champion"] == {"version": "2", "run_id": second} and facts["version"] == "3"
    assert [rule["passed"] for rule in facts["rules"]] == [False, True, False] and not facts["passed"]
    assert facts["rules"][0]["numbers"]["only_champion_right"] == 30


def test_the_same_model_keeps_its_version_and_is_not_compared_with_itself(door, capsys) -> None:
    door.train(60)
    assert door.gate() == 0 and door.gate() == 0
    said = capsys.readouterr().out
    assert said.count("version 1: is the champion now") == 1 and "the champion itself" in said
    run_id = read_json(door.folder / "artifacts/train/run.json")["run_id"]
    write_run(door.folder, answers(10), weights=run_id, run_id=run_id, tracking_uri=door.store)
    assert door.gate() == 0 and door.champion() == "2", "the same weights with other answers are another version"


@pytest.mark.filterwarnings("ignore")  # MLflow's loaders, on types of their own
def test_a_version_keeps_its_exported_file_in_the_form_that_mlflow_serves(door) -> None:
    from mlflow import pyfunc

    run_id, contents = door.train(60), []
    for seed in (0, 1):
        write_export(door.folder)
        file = exported.write_file(door.folder / "artifacts/export/model.onnx", seed)
        contents.append(file.read_bytes())
        assert door.gate() == int(seed == 1), "the same answers are no better than the champion's"
    assert contents[0] != contents[1]
    for number, content in zip("12", contents, strict=True):
        version = door.client.get_model_version(door.name, number)
        brought = door.client.download_artifacts(run_id, version.tags["stillframe.file"], str(door.folder))
        assert Path(brought).read_bytes() == content
        asked = writer.download(door.client, f"models:/{door.name}/{number}", door.folder / "brought" / number)
        assert asked.read_bytes() == content, "what `stillframe predict --model models:/...` opens"
        signature = pyfunc.load_model(version.source).metadata.signature
        assert signature.outputs.input_names()[0] == "decision"


def test_a_dry_run_changes_nothing(door, capsys) -> None:
    run_id = door.train(60)
    assert door.gate("--dry-run") == 0
    assert "a dry run: nothing was registered" in capsys.readouterr().out
    assert not door.client.search_model_versions(f"name = '{door.name}'")
    assert not door.client.list_artifacts(run_id) and "stillframe.gate" not in door.client.get_run(run_id).data.tags
    assert read_json(door.folder / "artifacts/gate/verdict.json")["dry_run"] is True


def test_rollback_goes_back_one_by_one(door, capsys) -> None:
    for wrong in (90, 50, 10):
        door.train(wrong)
        assert door.gate() == 0
    assert door.gate("--rollback", "--dry-run") == 0 and door.champion() == "3"
    assert "version 2 would be the champion again" in capsys.readouterr().out
    assert door.gate("--rollback") == 0 and door.champion() == "2"
    assert door.gate("--rollback") == 0 and door.champion() == "1"
    with pytest.raises(SystemExit, match="version 1 is the first champion: name the version"):
        door.gate("--rollback")
    assert door.gate("--rollback", "3") == 0 and door.champion() == "3"
    with pytest.raises(SystemExit, match="version 3 is the champion already"):
        door.gate("--rollback", "3")
    with pytest.raises(SystemExit, match="no version 9: there are 1, 2, 3"):
        door.gate("--rollback", "9")
    log = door.client.get_registered_model(door.name).tags["stillframe.champions"].splitlines()
    assert [line.split(" ", 1)[1] for line in log] == [
        "1 gate", "2 gate", "3 gate", "2 rollback", "1 rollback", "3 rollback"
    ]  # fmt: skip


def test_a_champion_by_hand_is_compared_with_and_written_down(door) -> None:
    """A version that somebody else registered: its answers are those that the stage evaluate has sent."""
    run_id = door.train(60)
    for name in ("evaluate/predictions.parquet", "evaluate/metrics.json", "../data/prepared/card.json"):
        door.client.log_artifact(run_id, str(door.folder / "artifacts" / name), "evaluate")
    door.client.create_registered_model(door.name)
    made = door.client.create_model_version(door.name, "somewhere", run_id)
    door.client.set_registered_model_alias(door.name, "champion", made.version)
    door.train(70)
    assert door.gate() == 1 and door.champion() == "1"
    door.train(10)
    assert door.gate() == 0 and door.champion() == "3"
    assert door.gate("--rollback") == 0 and door.champion() == "1"


def test_a_champion_without_answers_is_not_compared_with(door, capsys) -> None:
    run_id = door.train(60)
    door.client.create_registered_model(door.name)
    made = door.client.create_model_version(door.name, "somewhere", run_id)
    door.client.set_registered_model_alias(door.name, "champion", made.version)
    door.train(10)
    assert door.gate() == 1 and door.champion() == "1"
    rule = read_json(door.folder / "artifacts/gate/verdict.json")["rules"][0]
    assert rule["why"].startswith(f"not comparable: version 1 (run {run_id}) has no answers")


def test_a_champion_that_changed_meanwhile_is_not_overwritten(door, monkeypatch) -> None:
    from stillframe.registry.gate import run

    door.train(60)
    door.gate()
    door.train(10)
    judged = run.checks.judge

    def meanwhile(*arguments: Any) -> Any:
        other = door.client.create_model_version(door.name, "somewhere", door.client.create_run(door.place).info.run_id)
        door.client.set_registered_model_alias(door.name, "champion", other.version)
        return judged(*arguments)

    monkeypatch.setattr(run.checks, "judge", meanwhile)
    with pytest.raises(SystemExit, match="version 2 became the champion while version 3 was compared"):
        door.gate()
    assert door.champion() == "2"


def test_what_is_missing_is_said(door) -> None:
    with pytest.raises(SystemExit, match=r"run\.json is missing: run `dvc repro`"):
        door.gate()
    door.train(10)
    origin = door.folder / "artifacts/train/run.json"
    facts = read_json(origin)
    origin.write_text(json.dumps({**facts, "run_id": None}), encoding="utf-8")
    with pytest.raises(SystemExit, match="`stillframe sync` first"):
        door.gate()
    later = door.folder / ".resume/journal/made.run"
    later.parent.mkdir(parents=True)
    later.write_text(facts["run_id"], encoding="utf-8")
    assert door.gate("--dry-run") == 0, "the journal knows the run that `stillframe sync` made"
    with pytest.raises(SystemExit, match="has no champion"):
        door.gate("--rollback")


def test_a_server_that_is_away_is_one_line(door, capsys) -> None:
    door.train(10)
    origin = door.folder / "artifacts/train/run.json"
    origin.write_text(json.dumps({**read_json(origin), "tracking_uri": "http://127.0.0.1:9"}), encoding="utf-8")
    with pytest.raises(SystemExit, match=r"MLflow at http://127\.0\.0\.1:9 does not answer"):
        door.gate()


def test_the_line_of_champions() -> None:
    def line(*words: str) -> list[str]:
        return line_of([Promotion("t", *word.split()) for word in words])

    assert line() == [] and line("1 gate", "1 gate") == ["1"]
    assert line("1 gate", "2 gate", "3 gate", "2 rollback") == ["1", "2"]
    assert line("1 gate", "2 gate", "1 rollback", "3 gate") == ["1", "3"]
    assert line("1 gate", "7 rollback") == ["1", "7"], "a version that never was champion comes on top"
    assert line("1 hand", "2 gate", "1 gate") == ["1", "2", "1"]
