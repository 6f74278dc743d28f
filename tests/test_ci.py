"""docs/ci: what a user copies parses, names no registry, and calls only what exists, with arguments that exist."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.cli.parser import get_main_parser

from stillframe.cli import parser

ROOT = Path(__file__).parents[1]
CI = ROOT / "docs/ci"
WORKFLOW = yaml.load((CI / "pull-request.yaml").read_text(encoding="utf-8"), Loader=yaml.BaseLoader)  # `on` is a word
STEPS: list[dict[str, Any]] = WORKFLOW["jobs"]["model"]["steps"]
SCRIPT = (CI / "comment.sh").read_text(encoding="utf-8")
SHELL = {
    "test",
    "echo",
    "cat",
    "printf",
    "sh",
    "rm",
    "set",
    "section",
    "apt-get",
    "git",
    "fi",
    "then",
    "if",
    "else",
    "do",
}
SHELL |= {"done", "for"}
HOST = re.compile(r"\b[a-z0-9-]+(\.[a-z0-9-]+)*\.(io|com|org|net|dev|azurecr|amazonaws)(/|:|\b)")


def instructions() -> list[tuple[str, str]]:
    """(INSTRUCTION, arguments) of the Dockerfile, continued lines joined, comments left out."""
    lines = (CI / "Dockerfile").read_text(encoding="utf-8").splitlines()
    text = "\n".join(line for line in lines if not line.lstrip().startswith("#")).replace("\\\n", " ")
    return [tuple(line.strip().split(maxsplit=1)) for line in text.splitlines() if line.strip()]  # type: ignore[misc]


def commands(text: str) -> list[list[str]]:
    """The simple commands of a shell text, those inside $(...) and after if, then and && included."""
    text = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    text = re.sub(r"\$\{[^}]*\}", "X", text)
    inner = re.findall(r"\$\(([^()]*)\)", text)
    text = "\n".join([re.sub(r"\$\([^()]*\)", "X", text), *inner])
    found = []
    for part in re.split(r"\n|;|&&|\|\|", text):
        words = shlex.split(re.sub(r"\s>\s*\S+", "", part), comments=True)
        while words and words[0] in ("if", "then", "else", "do", "!", "{", "}"):
            words = words[1:]
        if words and not re.match(r"^\w+(=|\(\))", words[0]):
            found.append(words)
    return found


def known(words: list[str]) -> None:
    """AssertionError or SystemExit for a command that is not there, or does not take these arguments."""
    program, *rest = words
    if program == "stillframe":
        parser().parse_args(rest)
    elif program == "dvc":
        get_main_parser().parse_args(rest)
    elif program == "python":
        assert rest[:1] == ["-m"] and rest[1] in ("pip", "venv"), words
    elif program == "cml":
        assert rest[:2] == ["comment", "create"] and len(rest) == 3, words
    else:
        assert program in SHELL, words


RUNS = [(step["name"], command) for step in STEPS if "run" in step for command in commands(step["run"])]


@pytest.mark.parametrize(("step", "command"), RUNS, ids=[f"{step}: {' '.join(words)}" for step, words in RUNS])
def test_the_workflow_calls_what_exists(step: str, command: list[str]) -> None:
    known(command)


def test_the_workflow_does_what_it_is_for() -> None:
    called = [" ".join(words) for _, words in RUNS]
    assert "pull_request" in WORKFLOW["on"] and WORKFLOW["permissions"]["pull-requests"] == "write"
    order = [called.index(command) for command in ("dvc repro", "cml comment create comment.md", "stillframe gate")]
    assert order == sorted(order)
    assert all(step.get("uses", "x@v1").count("@v") == 1 for step in STEPS), "actions are pinned to a version"
    named = {name for step in STEPS for name in re.findall(r"docs/ci/[\w.-]+", step.get("run", ""))}
    assert named == {"docs/ci/comment.sh"} and (ROOT / "docs/ci/comment.sh").is_file()
    comment = next(step for step in STEPS if "cml comment" in step.get("run", ""))
    assert "head.repo.full_name == github.repository" in comment["if"], "a fork's run has no right to comment"


@pytest.mark.parametrize("words", commands(SCRIPT), ids=" ".join)
def test_the_comment_calls_what_exists(words: list[str]) -> None:
    known(words)


def test_the_commands_of_a_text_are_found() -> None:
    """The checks above see what they should: a call inside $(...), after `if`, after `then`."""
    found = commands('if test -n "$(dvc nothing)"; then stillframe nonsense; fi\nsection "a b" "$(dvc more "$x")"')
    assert ["dvc", "nothing"] in found and ["stillframe", "nonsense"] in found and ["dvc", "more", "$x"] in found
    for words in (["stillframe", "nonsense"], ["dvc", "nothing"], ["stillframe", "gate", "--dryrun=1"]):
        with pytest.raises((SystemExit, Exception)):
            known(words)


def test_the_shell_script_is_one() -> None:
    subprocess.run(["sh", "-n", str(CI / "comment.sh")], check=True)


def test_the_dockerfile_has_two_targets_from_one_base() -> None:
    found = instructions()
    assert found[0][0] == "ARG" and found[0][1].startswith("BASE=")
    stages = [words.split(" AS ") for name, words in found if name == "FROM"]
    assert [stage for _, stage in stages] == ["packages", "train", "serve"]
    assert {base for base, _ in stages} == {"${BASE}"}
    known_words = {"ARG", "FROM", "RUN", "ENV", "WORKDIR", "COPY", "CMD", "ENTRYPOINT", "EXPOSE", "USER"}
    assert {name for name, _ in found} <= known_words
    assert any("pip install -r requirements.lock" in words for name, words in found if name == "RUN")


def test_the_dockerfile_calls_and_copies_what_exists() -> None:
    entry: list[str] = []
    for name, words in instructions():
        if name == "RUN":
            for command in commands(re.sub(r"--mount=\S+", "", words)):
                known(command)
        elif name == "ENTRYPOINT":
            entry = json.loads(words)
        elif name == "CMD":
            known([*entry, *json.loads(words)])
        elif name == "FROM":
            entry = []
        elif name == "COPY" and not words.startswith("--from"):
            for source in words.split()[:-1]:
                assert (ROOT / source).exists() or source == "artifacts/export", source


@pytest.mark.parametrize("path", sorted(CI.iterdir()), ids=lambda path: path.name)
def test_no_registry_is_named(path: Path) -> None:
    found = HOST.search(path.read_text(encoding="utf-8"))
    assert not found, found and found.group()
