"""What a run came from: code, data, parameters, packages, machine."""

from __future__ import annotations

import os
import platform
import subprocess
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


def _git(*words: str) -> str | None:
    try:
        answer = subprocess.run(["git", *words], capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()


def code() -> dict[str, Any]:
    """Commit, branch and whether files of the checkout differ from it."""
    commit = _git("rev-parse", "HEAD")
    changed = _git("status", "--porcelain", "--untracked-files=no")
    return {
        "git_commit": commit,
        "git_branch": _git("rev-parse", "--abbrev-ref", "HEAD"),
        "dirty": bool(changed),
    }


def uncommitted() -> str:
    """The difference between the checkout and its commit ("" when there is none)."""
    return _git("diff", "HEAD", "--", ".", ":!dvc.lock") or ""


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
                if not entry["path"].startswith("src/"):
                    hashes[f"{stage}/{kind}/{entry['path']}"] = str(entry.get("md5", ""))
    return hashes


def dvc_tags(hashes: dict[str, str]) -> dict[str, str]:
    """The hashes that no other one repeats, as tags: what each stage made, and what came from outside the DAG."""
    outside = ("preprocess/deps/data/source", "compose/deps/conf")
    return {f"dvc.{path}": value for path, value in hashes.items() if "/outs/" in path or path in outside}


def versions() -> dict[str, str]:
    """Versions of the packages that decide a result."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return {"python": platform.python_version(), **found}


def machine() -> dict[str, str]:
    """Processor, cores, system; the GPU's name where torch sees one."""
    import torch

    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none"
    return {
        "host": platform.node(),
        "processor": platform.machine(),
        "cores": str(os.cpu_count()),
        "system": platform.platform(),
        "gpu": gpu,
    }
