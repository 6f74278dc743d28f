"""A run made again in a clean clone: its commit, its uncommitted edits, its parameters; train and all after it run.

The clone has a DVC cache of its own, into which only what the data stages made is linked: what train and the stages
after it made cannot come from a cache, because there is none that has it.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from stillframe.paths import PARAMS
from stillframe.registry.verify.record import CannotRebuild, RecordedRun
from stillframe.sweeps.git_snapshot import GitError, git
from stillframe.sweeps.worktree import Worktree, cache_of, environment, run_guarded

DATA_STAGES = ("fetch", "preprocess", "augment")  # whose outputs may come from DVC's cache
NAME = "verify"  # as DVC_EXP_NAME: the stage compose leaves the recorded params.yaml alone
LAST_LINES = 12  # lines of a failed rebuild that are shown
LONGEST_S = 7 * 24 * 3600.0


def clone(root: Path, recorded: RecordedRun, folder: Path) -> None:
    """The run's code and parameters in `folder`, without any of its results.

    Raises:
        CannotRebuild: git does not know the commit, or the recorded edits do not apply to it.
    """
    commit = recorded.commit
    try:
        git(root, "cat-file", "-e", f"{commit}^{{commit}}")
    except (GitError, FileNotFoundError):
        raise CannotRebuild(f"git does not know its commit {commit} here: `git fetch`, then again") from None
    folder.parent.mkdir(parents=True, exist_ok=True)
    git(root, "clone", "--quiet", "--shared", "--no-checkout", str(root), str(folder))
    git(folder, "checkout", "--quiet", "--detach", commit)
    if recorded.patch is not None:
        try:
            patch = folder.parent / "uncommitted.diff"
            patch.write_bytes(recorded.patch.read_bytes() + b"\n")  # older records lack the last newline
            git(folder, "apply", "--whitespace=nowarn", str(patch))
        except GitError as problem:
            raise CannotRebuild(f"lineage/uncommitted.diff does not apply to commit {commit}: {problem}") from None
    shutil.copyfile(recorded.folder / "lineage/params.yaml", folder / PARAMS)
    _link_own_files(root, folder, recorded.params())


def _link_own_files(root: Path, folder: Path, params: dict[str, Any]) -> None:
    """Images and weights that the parameters name relative to the checkout lie outside git: link them."""
    for section, key in (("data", "path"), ("model", "weights")):
        named = Path(str(params.get(section, {}).get(key) or "/"))
        if not named.is_absolute() and (root / named).exists() and not (folder / named).exists():
            (folder / named).parent.mkdir(parents=True, exist_ok=True)
            (folder / named).symlink_to((root / named).resolve())


def link_data(root: Path, recorded: RecordedRun, folder: Path, cache: Path) -> list[str]:
    """Give the clone a cache of its own with what the data stages made, as far as the checkout's cache has it.

    Returns:
        The outputs that are in it; the stages of the others run again.
    """
    source, linked = cache_of(root), []
    for stage in DATA_STAGES:
        for out in recorded.lock().get(stage, {}).get("outs", []):
            if _link(source, cache, str(out.get("md5", ""))):
                linked.append(str(out["path"]))
    _keep_data_stages(recorded.folder / "lineage/dvc.lock", folder / "dvc.lock")
    local = folder / ".dvc/config.local"
    for path in (cache, local.parent):
        path.mkdir(parents=True, exist_ok=True)
    local.write_text(f"[cache]\n    dir = {cache}\n    type = reflink,hardlink,symlink\n", encoding="utf-8")
    return linked


def _keep_data_stages(recorded: Path, lock: Path) -> None:
    """A dvc.lock with the data stages alone, as DVC writes it: read as YAML 1.1, some of its values would change."""
    from ruamel.yaml import YAML

    lock.unlink(missing_ok=True)
    if not recorded.is_file():
        return
    yaml = YAML()
    document = yaml.load(recorded.read_text(encoding="utf-8"))
    for stage in [name for name in document["stages"] if name not in DATA_STAGES]:
        del document["stages"][stage]
    with lock.open("w", encoding="utf-8") as file:
        yaml.dump(document, file)


def _link(source: Path, cache: Path, md5: str) -> bool:
    """Link an object, and those that a folder's object lists; False when one of them is not there."""
    inside = Path("files/md5", md5[:2], md5[2:])
    if not md5 or not (source / inside).is_file():
        return False
    listed = json.loads((source / inside).read_text(encoding="utf-8")) if md5.endswith(".dir") else []
    # A folder is stored as a list of its files (.dir). All or nothing: `dvc checkout` fails where a
    # file of the list is missing.
    parts = [Path("files/md5", entry["md5"][:2], entry["md5"][2:]) for entry in listed]
    if not all((source / part).is_file() for part in parts):
        return False
    for part in dict.fromkeys([*parts, inside]):
        (cache / part).parent.mkdir(parents=True, exist_ok=True)
        if (cache / part).exists():
            continue
        try:
            os.link(source / part, cache / part)
        except OSError:  # another file system
            shutil.copy2(source / part, cache / part)
    return True


def repro(root: Path, recorded: RecordedRun, folder: Path, outs: list[str], store: str, log: Path) -> None:
    """`dvc repro` in the clone, recorded in a store of its own.

    Raises:
        CannotRebuild: a stage failed; with the last lines of the log.
    """
    slot = Worktree(0, folder, root)
    # Sums of floats depend on the number of threads: the recorded one, not this machine's.
    threads = recorded.tags.get("machine.threads") or str(len(os.sched_getaffinity(0)))
    env = environment(slot, None, int(threads), {"MLFLOW_TRACKING_URI": store, "DVC_EXP_NAME": NAME})
    env.pop("STILLFRAME_RUN", None)  # of a sweep around us: the rebuild is a run of its own
    dvc = [sys.executable, "-m", "dvc"]
    if outs:
        run_guarded(slot, [*dvc, "checkout", "--quiet", *outs], env, log, LONGEST_S)
    # Without the run-cache, which would restore the results that are to be made anew.
    code = run_guarded(slot, [*dvc, "repro", "--no-run-cache"], env, log, LONGEST_S)
    if code:
        output = log.read_text(encoding="utf-8", errors="replace").splitlines()[-LAST_LINES:]
        raise CannotRebuild("the rebuild failed:\n  " + "\n  ".join(output))
