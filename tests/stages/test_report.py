import json

import pytest

from stillframe.config import TrackingConfig
from stillframe.stages import report
from stillframe.types import DatasetCard

TRACKING = TrackingConfig("made", None, 1.0, 1.0)


def make_least(root):
    """The three files without which there is nothing to report."""
    counts = {split: {"good": 3, "bad": 2} for split in ("train", "val", "test")}
    DatasetCard("made", ["good", "bad"], counts, 1, 8, 8, [0.5], [0.2], [], "0" * 64).write(root / "prepared/card.json")
    for name in ("evaluate", "train"):
        (root / name).mkdir()
    (root / "train/model.json").write_text(json.dumps({"task": "classification"}))
    (root / "evaluate/metrics.json").write_text(json.dumps({"accuracy": 0.75}))


def folders(root):
    names = {"prepared": "prepared", "augmented": "augmented", "trained": "train", "validated": "validate"}
    names |= {"evaluated": "evaluate", "reported": "report"}
    return {key: root / name for key, name in names.items()}


def test_the_page_is_written_and_sent_to_the_run(tmp_path, monkeypatch, capsys):
    from stillframe.tracking import record

    sent = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(record, "record_report", lambda *arguments: sent.append(arguments))
    make_least(tmp_path)
    report.run(TRACKING, **folders(tmp_path))
    assert [arguments[:3] for arguments in sent] == [(tmp_path / "train/run.json", tmp_path / "report", TRACKING)]
    assert "test images this model is right" in sent[0][3]
    assert "75.0" in (tmp_path / "report/report.html").read_text(encoding="utf-8")
    assert "report.html" in capsys.readouterr().out


def test_nothing_is_sent_when_there_is_nothing_to_report(tmp_path, monkeypatch):
    from stillframe.tracking import record

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(record, "record_report", lambda *_: pytest.fail("sent"))
    with pytest.raises(FileNotFoundError, match="card.json"):
        report.run(TRACKING, **folders(tmp_path))
