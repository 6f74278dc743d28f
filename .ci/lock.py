"""Write requirements.lock: exact pins of what pyproject.toml asks for (with the extra `dev`), as installed here.

Run by `make lock` in an environment in which `pip install -e '.[dev]'` has just resolved everything. Names no index
and no hash: the file must work against any mirror. What a package asks for on Linux only (CUDA for torch) keeps that
condition.
"""

from __future__ import annotations

import sys
import tomllib
from importlib import metadata
from pathlib import Path

from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

LINUX = 'sys_platform == "linux"'
HEADER = """\
# Exact versions of everything: written by `make lock`, not by hand. Python 3.11 to 3.13.
# No index is named: pip takes what it is configured to take. Installed by `make`; by hand:
#   pip install -r requirements.lock && pip install --no-deps -e .
"""


def wanted(requirement: Requirement, extras: set[str], environment: dict[str, str]) -> bool:
    """Whether the requirement holds in an environment, with one of the extras (or none)."""
    if requirement.marker is None:
        return True
    return any(requirement.marker.evaluate(environment | {"extra": extra}) for extra in extras | {""})


def asked_for() -> list[Requirement]:
    """What pyproject.toml asks for, with the extra `dev`."""
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [Requirement(text) for text in (*project["dependencies"], *project["optional-dependencies"]["dev"])]


def closure(environment: dict[str, str]) -> set[str]:
    """Names of all installed packages that the project needs in an environment."""
    waiting = [(canonicalize_name(one.name), frozenset(one.extras)) for one in asked_for()]
    seen, names = set(), set()
    while waiting:
        name, extras = waiting.pop()
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        try:
            asked = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            print(f"lock: {name} is asked for but not installed here: left to pip", file=sys.stderr)
            continue
        names.add(canonicalize_name(name))
        for text in asked:
            requirement = Requirement(text)
            if wanted(requirement, set(extras), environment):
                waiting.append((canonicalize_name(requirement.name), frozenset(requirement.extras)))
    return names


def main() -> None:
    """Write the file."""
    here: dict[str, str] = {}
    elsewhere = {"sys_platform": "darwin", "platform_system": "Darwin", "platform_machine": "arm64", "os_name": "posix"}
    assert Marker(LINUX).evaluate(), "make the lock on Linux: CUDA packages are pinned too"
    everywhere = closure(elsewhere)
    lines = []
    for name in sorted(closure(here)):
        lines.append(f"{name}=={metadata.version(name)}" + ("" if name in everywhere else f" ; {LINUX}"))
    Path("requirements.lock").write_text(HEADER + "\n".join(lines) + "\n", encoding="utf-8")
    print(f"requirements.lock: {len(lines)} packages")


if __name__ == "__main__":
    main()
