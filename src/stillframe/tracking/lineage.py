"""What a run came from: code, data, parameters, packages, machine."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

PACKAGES = (
    "stillframe",
    "torch",
    "torchvision",
    "timm",
    "pytorch-lightning",
    "albumentations",
    "numpy",
    "dvc",
    "mlflow",
    "hydra-core",
)


LARGEST_NEW_FILE = 1_000_000  # bytes; a larger one that git does not know is named in the difference, not held


def _output(*arguments: str, env: dict[str, str] | None = None) -> bytes | None:
    """What git prints, to the byte; None: it failed, or this is no repository."""
    environment = {**os.environ, **(env or {})}
    try:
        answer = subprocess.run(["git", *arguments], capture_output=True, timeout=30, check=True, env=environment)
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout


def _git(*arguments: str) -> str | None:
    output = _output(*arguments)
    return output.decode(errors="surrogateescape").strip() if output is not None else None


def code() -> dict[str, Any]:
    """Commit, branch and whether files of the checkout differ from it."""
    commit = _git("rev-parse", "HEAD")
    changed = _git("status", "--porcelain", "--untracked-files=no")
    return {
        "git_commit": commit,
        "git_branch": _git("rev-parse", "--abbrev-ref", "HEAD"),
        "dirty": bool(changed),
    }


def uncommitted() -> bytes:
    """The difference between the checkout and its commit, as `git apply` takes it ("" when there is none).

    New files that git neither knows nor ignores are part of it; the user's index is not touched.
    """
    index, listed = _git("rev-parse", "--git-path", "index"), _git("ls-files", "--others", "--exclude-standard", "-z")
    if index is None or listed is None:
        return b""
    new = [name for name in listed.split("\0") if name and Path(name).is_file()]
    large = [name for name in new if Path(name).stat().st_size > LARGEST_NEW_FILE]
    with tempfile.TemporaryDirectory() as folder:
        # New files must be in an index to be in a diff: in a copy of it, because the user's own is not ours to change.
        env = {"GIT_INDEX_FILE": str(Path(folder, "index"))}
        if Path(index).is_file():
            shutil.copyfile(index, env["GIT_INDEX_FILE"])
        taken = [name for name in new if name not in large]
        if taken:
            _output("add", "--intent-to-add", "--", *taken, env=env)
        changes = _output("diff", "--binary", "HEAD", "--", ".", ":!dvc.lock", env=env) or b""
    left_out = "".join(f"# left out: {name} ({Path(name).stat().st_size} bytes)\n" for name in large)
    return left_out.encode(errors="surrogateescape") + changes


def dvc_hashes(lock: Path = Path("dvc.lock"), without: tuple[str, ...] = ()) -> dict[str, str]:
    """DVC's md5 by "<stage>/deps|outs/<path>", as far as dvc.lock knows them; code dependencies left out.

    `without`: stages that have not run yet; what the lock has of them is of an earlier run.
    """
    if not lock.exists():
        return {}
    stages = (yaml.safe_load(lock.read_text(encoding="utf-8")) or {}).get("stages", {})
    hashes = {}
    for stage, facts in stages.items():
        if stage in without:
            continue
        for kind in ("deps", "outs"):
            for entry in facts.get(kind, []):
                if not entry["path"].startswith("src/"):  # the commit says what the code was
                    hashes[f"{stage}/{kind}/{entry['path']}"] = str(entry.get("md5", ""))
    return hashes


def dvc_tags(hashes: dict[str, str]) -> dict[str, str]:
    """The hashes that no other one repeats, as tags: what each stage made, and what came from outside the DAG."""
    outside = ("preprocess/deps/data/source", "compose/deps/conf")
    return {f"dvc.{path}": value for path, value in hashes.items() if "/outs/" in path or path in outside}


def versions() -> dict[str, str]:
    """Versions of the packages that decide a result."""
    installed = {}
    for name in PACKAGES:
        try:
            installed[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            installed[name] = "not installed"
    return {"python": platform.python_version(), **installed}


def machine() -> dict[str, str]:
    """Processor, cores, system; torch's threads and instructions; the GPU's name where torch sees one."""
    import torch

    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none"
    return {
        "host": platform.node(),
        "processor": platform.machine(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": str(os.cpu_count()),
        "threads": str(torch.get_num_threads()),
        "system": platform.platform(),
        "gpu": gpu,
    }
