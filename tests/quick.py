"""Prints the tests that matter for an edit, for `make quick`: those of the packages whose files have changed.

Changed are the files that differ from the last commit; where nothing does, those of the last commit. Tests mirror src:
`src/stillframe/store/split.py` is tested by `tests/store`. What each edit can break comes last: names, layers, options.
"""

from __future__ import annotations

import subprocess
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).parents[1]
ALWAYS = ["tests/test_house.py", "tests/test_config.py"]


def changed() -> list[str]:
    """Paths relative to the root, new files included."""

    def git(*words: str) -> list[str]:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()

    now = git("diff", "--name-only", "HEAD") + git("ls-files", "--others", "--exclude-standard")
    return now or git("diff", "--name-only", "HEAD~1")


def tests_of(path: str) -> str | None:
    """The folder or file of tests that is nearest to a file, or None."""
    parts = PurePosixPath(path).parts
    if parts[0] == "tests":
        # a helper that several tests share has no tests of its own
        return path if parts[-1].startswith("test_") and path.endswith(".py") else None
    if parts[:2] != ("src", "stillframe"):
        return None
    below = parts[2:]
    for depth in range(len(below) - 1, 0, -1):
        folder = "/".join(("tests", *below[:depth]))
        if (ROOT / folder).is_dir():
            return folder
    return f"tests/test_{PurePosixPath(below[-1]).stem}.py"


if __name__ == "__main__":
    wanted = [near for path in changed() if (near := tests_of(path)) and (ROOT / near).exists()]
    print(" ".join(dict.fromkeys([*wanted, *ALWAYS])))
