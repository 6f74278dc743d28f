"""What README and docs tell a reader to type exists and composes; what they link to is there."""

import importlib
import importlib.util
import re
import shlex
from pathlib import Path

import pytest

from stillframe.cli import parser
from stillframe.config.hydra_compose import compose

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]
    + list((ROOT / "src/stillframe/tasks").glob("*/README.md"))
)
TEXTS = {str(page.relative_to(ROOT)): page.read_text(encoding="utf-8") for page in PAGES}


def commands(program: str) -> list[tuple[str, str]]:
    """(page, command) of every command line or inline code that starts with the program."""
    found = []
    for page, text in TEXTS.items():
        blocks = "".join(re.findall(r"^```[a-z]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
        prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
        code = re.findall(r"`([^`\n]+)`", prose) + [line.strip().removeprefix("$ ") for line in blocks.splitlines()]
        found += [(page, line) for line in code if line.startswith(program + " ")]
    return sorted(set(found))


def overrides_of(command: str) -> list[str]:
    words = shlex.split(command.split("  #")[0].split(" # ")[0])
    return [words[i + 1] for i, word in enumerate(words[:-1]) if word in ("-S", "--set-param")]


@pytest.mark.parametrize(("page", "command"), commands("dvc exp run"))
def test_overrides_that_are_shown_compose(page, command):
    if "..." in command:
        command = command.replace("-S ...", "").replace("...", "")
    assert compose(overrides_of(command), ROOT / "conf")


@pytest.mark.parametrize(("page", "command"), commands("make"))
def test_targets_that_are_shown_exist(page, command):
    target = shlex.split(command)[1]
    if re.fullmatch(r"[a-z-]+", target) and page != "docs/decisions.md":
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), f"{page}: {command}"


@pytest.mark.parametrize(("page", "command"), commands("stillframe"))
def test_subcommands_that_are_shown_exist(page, command):
    words = shlex.split(command.split(" # ")[0])
    known = next(action.choices for action in parser()._actions if action.choices and "check" in action.choices)
    assert words[1] in known or words[1].startswith("-"), f"{page}: {command}"


def headings(page: Path) -> set[str]:
    """The anchors of a page, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", TEXTS)
def test_links_lead_somewhere(page):
    for target, anchor in re.findall(r"\]\(([^)#]*)(?:#([^)]*))?\)", TEXTS[page]):
        if "://" not in target:
            path = (ROOT / page).parent / target if target else ROOT / page
            assert path.exists(), f"{page}: {target}"
            assert not anchor or anchor in headings(path), f"{page}: {target}#{anchor}"


def test_nothing_is_left_to_be_filled_in():
    for name, text in TEXTS.items():
        assert "@@" not in text and "to be measured" not in text, name


@pytest.mark.parametrize("page", TEXTS)
def test_imports_that_are_shown_work(page):
    for module, names in re.findall(r"^from (stillframe\S*) import (.+)$", TEXTS[page], re.MULTILINE):
        for name in names.split(", "):
            assert hasattr(importlib.import_module(module), name), f"{page}: from {module} import {name}"
    for module in re.findall(r"python -m (stillframe[\w.]*)", TEXTS[page]):
        assert importlib.util.find_spec(module), f"{page}: {module}"


@pytest.mark.parametrize("page", TEXTS)
def test_files_of_the_source_that_are_named_exist(page):
    code = re.findall(r"`([a-z_]+/(?:[\w]+/)*\w+\.py)`", TEXTS[page])
    roots = (ROOT, ROOT / "src", ROOT / "src/stillframe")
    assert [name for name in code if not any((root / name).exists() for root in roots)] == []


def test_tests_that_are_named_exist():
    source = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py"))
    named = set(re.findall(r"`(test_\w+)`", "".join(TEXTS.values())))
    assert len(named) > 50
    assert [name for name in sorted(named) if f"def {name}(" not in source] == []
