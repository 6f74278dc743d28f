"""What a run came from: the uncommitted edits, as a difference that `git apply` takes."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from door import commit, shell
from stillframe.tracking import lineage


@pytest.fixture
def edited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with an edit, a new file, a new binary file, a deleted file, and files that git ignores."""
    folder = tmp_path / "edited"
    (folder / "conf/data").mkdir(parents=True)
    for name in ("kept.py", "gone.py", "dvc.lock"):
        (folder / name).write_text(f"{name}\n", encoding="utf-8")
    (folder / ".gitignore").write_text("/mlruns\n", encoding="utf-8")
    commit(folder, "start")
    monkeypatch.chdir(folder)
    for name in ("GIT_DIR", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)
    return folder


def test_nothing_edited_nothing_said(edited: Path) -> None:
    (edited / "dvc.lock").write_text("other results\n", encoding="utf-8")
    assert lineage.uncommitted() == b""


def test_edits_and_new_files_come_back(edited: Path, tmp_path: Path) -> None:
    (edited / "kept.py").write_bytes(b"kept.py\n  and more, with blanks at the end  \n\r\nDOS\r\n\xff\n")
    (edited / "gone.py").unlink()
    (edited / "conf/data/mine two.yaml").write_text("name: mine\n", encoding="utf-8")
    (edited / "weights.bin").write_bytes(bytes(range(256)))
    (edited / "mlruns").mkdir()
    (edited / "mlruns/ignored").write_text("x", encoding="utf-8")
    before = shell(edited, "git", "status", "--porcelain")
    changes = lineage.uncommitted()
    assert shell(edited, "git", "status", "--porcelain") == before, "the user's index is as it was"
    shell(tmp_path, "git", "clone", "-q", "edited", "again")
    (tmp_path / "it.diff").write_bytes(changes)
    subprocess.run(["git", "apply", str(tmp_path / "it.diff")], cwd=tmp_path / "again", check=True)
    for name in ("kept.py", "conf/data/mine two.yaml", "weights.bin"):
        assert (tmp_path / "again" / name).read_bytes() == (edited / name).read_bytes()
    assert not (tmp_path / "again/gone.py").exists() and not (tmp_path / "again/mlruns").exists()


def test_a_large_new_file_is_named_and_not_held(edited: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lineage, "LARGEST_NEW_FILE", 100)
    (edited / "video.raw").write_bytes(bytes(101))
    (edited / "small.py").write_text("small\n", encoding="utf-8")
    changes = lineage.uncommitted()
    assert changes.startswith(b"# left out: video.raw (101 bytes)\n") and b"+small" in changes


def test_outside_a_repository_there_is_nothing_to_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert lineage.uncommitted() == b""
