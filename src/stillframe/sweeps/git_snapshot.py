"""The state of the user's checkout as a commit, uncommitted edits included; the checkout itself is not touched."""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

RESULTS = ("dvc.lock", "params.yaml")  # written by `dvc repro`: they make no other code


class GitError(ValueError):
    """Git failed; the message is git's."""


def git(folder: Path, *arguments: str, env: dict[str, str] | None = None) -> str:
    """What git prints, without the last newline.

    Raises:
        GitError: it fails.
    """
    command = ["git", "-C", str(folder), *arguments]
    answer = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **(env or {})}, check=False)
    if answer.returncode:
        raise GitError(f"git {' '.join(arguments)}: {answer.stderr.strip() or answer.stdout.strip()}")
    return answer.stdout.rstrip("\n")


def someone(folder: Path) -> dict[str, str]:
    """An author for commits on a machine where git knows none."""
    try:
        git(folder, "var", "GIT_COMMITTER_IDENT")
    except GitError:
        mail, name = "stillframe@localhost", "stillframe"
        return {
            "GIT_AUTHOR_NAME": name,
            "GIT_AUTHOR_EMAIL": mail,
            "GIT_COMMITTER_NAME": name,
            "GIT_COMMITTER_EMAIL": mail,
        }
    return {}


@dataclass(frozen=True)
class Snapshot:
    """`head`: the commit that is checked out. `commit`: what the trials start from. `code`: digest of its files."""

    head: str
    commit: str
    code: str

    @property
    def dirty(self) -> bool:
        """Whether there were uncommitted edits."""
        return self.head != self.commit


def take(root: Path) -> Snapshot:
    """Commit what lies in the checkout (files that git ignores left out) without touching index or files.

    Raises:
        ValueError: no git repository with a commit here.
    """
    try:
        head = git(root, "rev-parse", "--verify", "HEAD")
    except (GitError, FileNotFoundError) as problem:
        raise ValueError(
            f"a sweep needs a git repository with a commit, because each trial is a checkout of its own: "
            f"git init && git add -A && git commit -m start ({problem})"
        ) from None
    # With an index of our own, so that what the user has staged stays as it is.
    with tempfile.TemporaryDirectory() as name:
        env = {"GIT_INDEX_FILE": f"{name}/index", **someone(root)}
        git(root, "read-tree", "HEAD", env=env)
        git(root, "add", "-A", env=env)
        tree = git(root, "write-tree", env=env)
        commit = head
        if tree != git(root, "rev-parse", "HEAD^{tree}"):
            commit = git(root, "commit-tree", tree, "-p", head, "-m", "uncommitted edits, for a sweep", env=env)
    return Snapshot(head, commit, code_digest(root, commit))


def code_digest(root: Path, commit: str) -> str:
    """sha256 over names and contents of the commit's files, what `dvc repro` writes left out."""
    lines = git(root, "ls-tree", "-r", commit).splitlines()
    lines = [line for line in lines if line.split("\t", 1)[1] not in RESULTS]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def keep(root: Path, name: str, commit: str) -> None:
    """A ref, so that git's garbage collection leaves the snapshot alone."""
    git(root, "update-ref", f"refs/stillframe/sweeps/{name}", commit)
