"""Each rule of the gate on made answers: what passes, what fails, and what the table says."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from checkouts import answers, write_export, write_run

from stillframe.registry.gate import checks, evidence, rules
from stillframe.registry.gate.checks import RuleResult
from stillframe.registry.gate.evidence import GateEvidence
from stillframe.tasks import find_task

ROOT = Path(__file__).parents[3]
NOTHING: dict[str, Any] = {"champion": None, "every_class": {}, "at_least": {}, "at_most": {}}
NOTHING |= {"export": None, "slices": None}
BETTER = {"metric": "accuracy", "least_gain": 0.0, "resamples": 2000, "not_comparable": "fail"}
SLICES = {"metric": "accuracy", "worse_by": 0.05, "least_images": 30}


def asked(folder: Path, **values: Any) -> rules.GateRules:
    path = folder / "rules.yaml"
    path.write_text(yaml.safe_dump({**NOTHING, **values}), encoding="utf-8")
    return rules.read(path, find_task("classification"))


def model(folder: Path, monkeypatch: pytest.MonkeyPatch, *wrong: Any, **export: Any) -> GateEvidence:
    place = folder / f"model{len(list(folder.iterdir()))}"
    place.mkdir()
    write_run(place, answers(*wrong))
    if export:
        write_export(place, **export)
    monkeypatch.chdir(place)
    return evidence.of_checkout()


def only(found: list[RuleResult]) -> RuleResult:
    (one,) = found
    return one


# --- against the champion ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metric", "new", "old", "passed"),
    [
        ("accuracy", 10, 40, True),
        ("accuracy", 38, 40, False),  # two images more: not beyond chance
        ("accuracy", 40, 10, False),
        ("f1_macro", 10, 40, True),
        ("f1_macro", 40, 40, False),
    ],
)
def test_better_means_beyond_chance(tmp_path, monkeypatch, metric, new, old, passed) -> None:
    first, second = (model(tmp_path, monkeypatch, wrong) for wrong in (new, old))
    given = asked(tmp_path, champion={**BETTER, "metric": metric})
    found = only(checks.judge(given, first, second, ""))
    assert found.passed == passed, found
    assert found.numbers["gain"] == pytest.approx(found.numbers["new"] - found.numbers["champion"])
    assert found.numbers["gain_low"] <= found.numbers["gain"] <= found.numbers["gain_high"]
    assert found.numbers["only_new_right"] - found.numbers["only_champion_right"] == old - new
    assert f"{found.numbers['new']:.4f} against {found.numbers['champion']:.4f}" in found.value


def test_accuracy_is_decided_by_the_exact_test(tmp_path, monkeypatch) -> None:
    """Five images to none: the bootstrap interval leaves out 0, McNemar's exact p is 2 / 2^5 = 0.0625."""
    new, old = model(tmp_path, monkeypatch, 0), model(tmp_path, monkeypatch, 5)
    found = only(checks.judge(asked(tmp_path, champion=BETTER), new, old, ""))
    assert found.numbers["gain_low"] > 0 and found.numbers["mcnemar_p"] == pytest.approx(0.0625)
    assert not found.passed and "McNemar p = 0.0625" in found.why


def test_at_most_a_little_worse_can_be_asked_for(tmp_path, monkeypatch) -> None:
    new, old = model(tmp_path, monkeypatch, 20), model(tmp_path, monkeypatch, 20)
    for least, passed in ((-0.01, True), (0.0, False)):
        given = asked(tmp_path, champion={**BETTER, "least_gain": least})
        assert only(checks.judge(given, new, old, "")).passed == passed


def test_other_test_images_are_not_compared(tmp_path, monkeypatch) -> None:
    new = model(tmp_path, monkeypatch, 10)
    other = model(tmp_path, monkeypatch, 10, 0, 200)
    given = asked(tmp_path, champion=BETTER, slices=SLICES)
    paired, sliced = checks.judge(given, new, other, "")
    assert not paired.passed and not sliced.passed and paired.numbers == {}
    assert "not comparable: another test split (split 555555555555" in paired.why
    assert "200 of its 200 images are among the 300 here" in paired.why
    lenient = asked(tmp_path, champion={**BETTER, "not_comparable": "pass"}, slices=SLICES)
    paired, sliced = checks.judge(lenient, new, other, "")
    assert paired.passed and sliced.passed and "not comparable" in paired.why


def test_labels_that_changed_and_classes_that_differ_are_said(tmp_path, monkeypatch) -> None:
    new, old = model(tmp_path, monkeypatch, 10), model(tmp_path, monkeypatch, 10)
    frame = old.predictions.assign(label=[1, *old.predictions["label"][1:]])
    assert "1 have another label now" in new.incomparable(replace(old, predictions=frame))
    assert "'dog' is on one side only" in new.incomparable(replace(old, classes=["ant", "bee", "dog"]))
    assert "another order" in new.incomparable(replace(old, classes=["bee", "ant", "cat"]))
    assert new.incomparable(old) == "" and new.doubt(old) == ""
    assert "has changed since" in new.doubt(replace(old, source="elsewhere"))


@pytest.mark.parametrize(
    ("why", "passed"), [("no champion yet: none", True), ("the champion itself", True), ("version 3 has none", False)]
)
def test_without_a_champion_its_rules_pass_and_say_why(tmp_path, monkeypatch, why, passed) -> None:
    new = model(tmp_path, monkeypatch, 10)
    for found in checks.judge(asked(tmp_path, champion=BETTER, slices=SLICES), new, None, why):
        assert found.passed == passed and why in found.why


# --- floors, ceilings, the exported file ---------------------------------------------------------------------------


def test_a_floor_holds_for_every_class(tmp_path, monkeypatch) -> None:
    new = model(tmp_path, monkeypatch, 30)
    worst = min(new.metrics[f"recall/{name}"] for name in new.classes)
    for least, passed in ((worst, True), (worst + 1e-6, False)):
        found = only(checks.judge(asked(tmp_path, every_class={"recall": least}), new, None, ""))
        assert found.passed == passed and f"{worst:.4f} (" in found.value
        assert set(found.numbers) == set(new.classes)
    assert "below it: " in found.why
    unseen = replace(new, metrics={k: v for k, v in new.metrics.items() if k != "recall/bee"})
    found = only(checks.judge(asked(tmp_path, every_class={"recall": 0.1}), unseen, None, ""))
    assert not found.passed and "no recall on the test images: bee" in found.why


def test_metrics_have_bounds_to_both_sides(tmp_path, monkeypatch) -> None:
    new = model(tmp_path, monkeypatch, 30)
    at = new.metrics["ece"]
    for bound, passed in ((at, True), (at - 1e-6, False)):
        assert only(checks.judge(asked(tmp_path, at_most={"ece": bound}), new, None, "")).passed == passed
    for bound, passed in ((0.9, True), (0.91, False)):
        assert only(checks.judge(asked(tmp_path, at_least={"accuracy": bound}), new, None, "")).passed == passed
    with pytest.raises(ValueError, match=r"at_most\.eec = 0.1: no such metric: did you mean 'ece'"):
        checks.judge(asked(tmp_path, at_most={"eec": 0.1}), new, None, "")
    less = replace(new, metrics={k: v for k, v in new.metrics.items() if k != "auroc"})
    found = only(checks.judge(asked(tmp_path, at_least={"auroc": 0.5}), less, None, ""))
    assert not found.passed and "not defined" in found.why


def test_size_and_latency_are_those_of_the_chosen_file(tmp_path, monkeypatch) -> None:
    bounds = {"megabytes": 12.0, "latency_ms_p50": None, "latency_ms_p99": 8.0, "changed_decisions": 0}
    given = asked(tmp_path, export=bounds)
    size, latency, changed = checks.judge(given, model(tmp_path, monkeypatch, 1, bytes=12_000_000), None, "")
    assert (size.passed, latency.passed, changed.passed) == (True, False, True)
    assert latency.value == "9" and "model.onnx (fp32)" in latency.why
    for found in checks.judge(given, model(tmp_path, monkeypatch, 1), None, ""):
        assert not found.passed and "artifacts/export/export.json is missing: run `dvc repro`" in found.why


# --- slices --------------------------------------------------------------------------------------------------------


def test_a_slice_that_got_worse_fails_although_the_whole_got_better(tmp_path, monkeypatch) -> None:
    new, old = model(tmp_path, monkeypatch, 10, 200), model(tmp_path, monkeypatch, 40, 0)
    found = only(checks.judge(asked(tmp_path, slices=SLICES), new, old, ""))
    assert not found.passed and found.why == "worse: camera=old"
    assert found.numbers["camera=old"] == pytest.approx({"images": 100, "new": 0.9, "champion": 1.0, "gain": -0.1})
    assert found.numbers["camera=new"]["gain"] == pytest.approx(0.2)
    assert found.value.startswith("-0.1000 (camera=old: 0.9000 against 1.0000, 100 images)")
    assert only(checks.judge(asked(tmp_path, slices={**SLICES, "worse_by": 0.1}), new, old, "")).passed
    found = only(checks.judge(asked(tmp_path, slices={**SLICES, "least_images": 101}), new, old, ""))
    assert found.passed and found.why == "1 slices have fewer than 101 images"


# --- the files -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["default", "strict"])
def test_the_rules_of_the_repository_are_read(name, monkeypatch) -> None:
    monkeypatch.chdir(ROOT)
    given = rules.read(rules.find(name), find_task("classification"))
    assert given.champion is not None and given.every_class and given.export is not None and given.slices is not None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("champion: !!python/object/apply:os.system ['touch ran']\n", "not plain YAML"),
        ("[1, 2]", "holds no rules"),
        ("chmpion: null\n", "unknown key chmpion = None: did you mean 'champion'?"),
        ("export: {megabytes: 1.0, latency: 3.0}\n", "unknown key export.latency = 3.0"),
        ("champion: {metric: acuracy}\n", "champion.metric = 'acuracy'"),
        ("every_class: {recall: 1.5}\n", "every_class.recall = 1.5"),
        ("every_class: {recal: 0.5}\n", "every_class.recal = 'recal'"),
        ("slices: {worse_by: often}\n", "slices.worse_by = 'often'"),
        ("{}\n", "at_most is missing"),
    ],
)
def test_a_fault_in_the_rules_names_file_key_and_value(tmp_path, monkeypatch, text, said) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=re.escape(said)) as caught:
        rules.read(path, find_task("classification"))
    assert str(path) in str(caught.value) and not (tmp_path / "ran").exists()


def test_rules_that_are_not_there(monkeypatch) -> None:
    monkeypatch.chdir(ROOT)
    with pytest.raises(FileNotFoundError, match="--rules strikt: no such file: did you mean 'strict'"):
        rules.find("strikt")


def test_evidence_of_two_runs_is_refused(tmp_path, monkeypatch) -> None:
    model(tmp_path, monkeypatch, 10)
    answers(20).to_parquet("artifacts/evaluate/predictions.parquet")
    with pytest.raises(ValueError, match="not of one run"):
        evidence.of_checkout()
    Path("artifacts/evaluate/predictions.parquet").write_bytes(b"PAR1 cut short")
    with pytest.raises(ValueError, match=r"predictions\.parquet is not a table"):
        evidence.of_checkout()
    Path("artifacts/evaluate/predictions.parquet").unlink()
    with pytest.raises(FileNotFoundError, match="dvc repro"):
        evidence.of_checkout()


def test_the_page_has_every_key_with_its_values() -> None:
    """docs/gate.md against conf/gate: each key that there is, and what both files say."""
    page = (ROOT / "docs/gate.md").read_text(encoding="utf-8")
    shown = {
        key: values for key, *values in re.findall(r"^\| `([a-z0-9_.]+)` \| (.+?) \| (.+?) \|", page, re.MULTILINE)
    }
    files = [
        yaml.safe_load((ROOT / f"conf/gate/{name}.yaml").read_text(encoding="utf-8")) for name in ("default", "strict")
    ]
    keys: dict[str, list[str]] = {}
    for section, value in files[0].items():
        if section in ("champion", "export", "slices"):
            for key in value:
                said = [one[section][key] for one in files]
                keys[f"{section}.{key}"] = ["null" if each is None else str(each) for each in said]
        else:
            keys[section] = [", ".join(f"{k} {v}" for k, v in one[section].items()) or "none" for one in files]
    assert shown == keys
