"""The user's door: a checkout of this repository in a folder of its own, and commands run in it as a user runs them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from PIL import Image

from tiny import picture

ROOT = Path(__file__).parents[1]
STAGES = ["compose", "fetch", "preprocess", "augment", "train", "validate", "evaluate", "export", "report"]
CLASSES = {"dark leaf": 26, "light leaf": 30, "stone": 32}
SETTINGS = """
data: {{path: {images}, image_size: 32}}
trainer: {{max_epochs: 2, batch_size: 4, threads: 1, accelerator: cpu, early_stopping: null}}
evaluate: {{bootstrap: 50, explain: 1}}
"""
OUTSIDE = ("DVC_", "GIT_", "MLFLOW_")  # what surrounds the tests must not reach the project


def environment(folder: Path) -> dict[str, str]:
    """Of a user in `folder`: the virtual environment first on PATH, the folder's own src/ first among the packages."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(OUTSIDE)}
    person = {f"GIT_{role}_{what}": "t@localhost" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    paths = [str(Path(sys.executable).parent), os.environ["PATH"]]
    return (
        kept
        | person
        | {
            "PATH": os.pathsep.join(paths),
            "PYTHONPATH": str(folder / "src") if (folder / "src").is_dir() else "",
            "PYTHONUNBUFFERED": "1",
            "DVC_SITE_CACHE_DIR": str(folder / ".site"),
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "200",
        }
    )


def shell(folder: Path, *command: str, fails: bool = False) -> str:
    """What a command says, stdout and stderr; AssertionError when it fails, or with `fails` when it does not."""
    done = subprocess.run(
        command, cwd=folder, env=environment(folder), capture_output=True, text=True, timeout=280, check=False
    )
    assert (done.returncode != 0) == fails, f"{command}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def ran(output: str) -> list[str]:
    """The stages that DVC ran, by its own words, in the order of the DAG."""
    return [stage for stage in STAGES if f"Running stage '{stage}'" in output]


def settings_of_the_repository(folder: Path) -> None:
    """Copy conf/, .dvc/ and the ignore files (that of data/, too) into `folder`."""
    for name in ("conf", ".dvc/plots"):
        shutil.copytree(ROOT / name, folder / name)
    (folder / "data").mkdir(exist_ok=True)
    for name in (".dvc/config", ".dvc/.gitignore", ".gitignore", ".dvcignore", "data/.gitignore"):
        shutil.copy(ROOT / name, folder / name)


def commit(folder: Path, message: str) -> None:
    """All that git does not ignore, as one commit; the first call makes the repository."""
    if not (folder / ".git").is_dir():
        shell(folder, "git", "init", "-q")
        (folder / ".git/info").mkdir(exist_ok=True)
        (folder / ".git/info/exclude").write_text("/.site\n", encoding="utf-8")
    shell(folder, "git", "add", "-A")
    shell(folder, "git", "commit", "-qm", message)


def photographs(folder: Path) -> Path:
    """88 colour pictures of 36 x 32 px in three class folders; the classes differ in brightness."""
    for at, (name, count) in enumerate(CLASSES.items()):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            image = picture(1000 * at + number, width=36, height=32) // 3 + 80 * at
            Image.fromarray(image).save(folder / name / f"{number:02d}.png")
    return folder


def checkout(folder: Path, images: Path) -> Path:
    """A committed copy of this repository that points at `images`, with a small net and few epochs."""
    folder.mkdir()
    settings_of_the_repository(folder)
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("dvc.yaml", "params.yaml"):  # the parameters of the demo: stale here
        shutil.copy(ROOT / name, folder)
    root = folder / "conf/config.yaml"
    text = root.read_text(encoding="utf-8")
    chosen = {"data": "folder", "augment": "light", "model": "plain_cnn", "validate": "default", "experiment": "null"}
    for group, option in chosen.items():
        text, found = re.subn(rf"- {group}: \w+", f"- {group}: {option}", text)
        assert found == 1
    root.write_text(text + SETTINGS.format(images=images), encoding="utf-8")
    commit(folder, "start")
    return folder
