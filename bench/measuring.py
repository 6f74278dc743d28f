"""What every row shares: its outcome, clocks, medians, and the table of docs/benchmarks.md."""

from __future__ import annotations

import os
import platform
import re
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "benchmarks.md"
BEGIN, END = "<!-- speed:begin -->", "<!-- speed:end -->"
INTRO = "# Benchmarks\n\nMeasured by programs of this repository (`make bench`), not by hand.\n"
PACKAGES = ("torch", "pytorch-lightning", "timm", "onnxruntime", "albumentations", "numpy", "dvc", "mlflow")


@dataclass(frozen=True)
class Result:
    """One line of the table.

    Attributes:
        number: of the row; rows of one number come from one measurement.
        what: is compared with what.
        target: as DESIGN has it.
        measured: figure and unit, as it is printed.
        met: None when there is nothing to judge.
        note: what is included, and what is not.
    """

    number: int
    what: str
    target: str
    measured: str
    met: bool | None
    note: str = ""


@dataclass(frozen=True)
class Setting:
    """How this run measures."""

    work: Path  # an empty folder, shared by the rows of one run
    threads: int  # of torch, OpenMP and TensorFlow where a row says "all threads"
    quick: bool
    images: Path | None  # class folders of real images for the rows on the data path
    keras: Path  # the virtual environment with Keras, made at the first use

    def pick(self, full: int, quick: int) -> int:
        """A size: for the record, or while developing."""
        return quick if self.quick else full


def interleaved(ours: Callable[[], float], theirs: Callable[[], float], rounds: int) -> tuple[list[float], list[float]]:
    """A B, B A, A B, ...: what a drift of the machine adds falls on both, and neither is always the first."""
    mine, other = [], []
    for number in range(rounds):
        for first in (True, False) if number % 2 == 0 else (False, True):
            (mine if first else other).append(ours() if first else theirs())
    return mine, other


def ratio(above: Sequence[float], below: Sequence[float]) -> float:
    """Median over median."""
    return statistics.median(above) / statistics.median(below)


def spread(values: Sequence[float], scale: float = 1.0, unit: str = "s") -> str:
    """Median with the smallest and the largest value."""
    low, middle, high = (scale * value for value in (min(values), statistics.median(values), max(values)))
    return f"{middle:.3g} {unit} ({low:.3g}..{high:.3g})"


def quiet_environment(threads: int, *path: Path) -> dict[str, str]:
    """Environment of a measured process: thread counts said, no call home, imports from `path` first."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "DVC_", "PYTHON"))}
    counts = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    calm = {"NO_ALBUMENTATIONS_UPDATE": "1", "MLFLOW_DISABLE_TELEMETRY": "true", "TF_CPP_MIN_LOG_LEVEL": "3"}
    calm["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # what dvc starts, too
    return {**kept, **counts, **calm, "PYTHONPATH": os.pathsep.join(map(str, path))}


def call(*words: object, cwd: Path, env: dict[str, str]) -> str:
    """Run a command and return what it printed.

    Raises:
        RuntimeError: it failed; with the end of what it printed.
    """
    done = subprocess.run([str(word) for word in words], cwd=cwd, env=env, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, words))} ended with {done.returncode}: {done.stderr[-2000:]}")
    return done.stdout


def machine() -> str:
    """Processor, cores, memory, system."""
    described = Path("/proc/cpuinfo").read_text(encoding="utf-8") if Path("/proc/cpuinfo").exists() else ""
    name = re.search(r"model name\s*: (.+)", described)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    flags = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if f" {flag}" in described]
    cpu = name.group(1).strip() if name else platform.processor() or platform.machine()
    return f"{cpu} ({', '.join(flags)}), {len(os.sched_getaffinity(0))} cores, {memory:.0f} GiB, {platform.system()}"


def section(results: Sequence[Result], setting: Setting, when: str) -> str:
    """The part of the page between the markers; `when`: how long it took, or what was measured when."""
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in PACKAGES)
    commit = call("git", "describe", "--always", "--dirty", cwd=ROOT, env=dict(os.environ)).strip()
    verdict = {True: "yes", False: "**no**", None: "-"}
    rows = [f"| {r.number} | {r.what} | {r.target} | {r.measured} | {verdict[r.met]} |" for r in results]
    notes = [f"- {r.number}: {r.note}" for r in results if r.note]
    trial = " **A trial run with `--quick`: the figures are not to be quoted.**" if setting.quick else ""
    lines = [
        BEGIN,
        "## Speed",
        "",
        f"`python -m bench.speed`, {date.today()}, commit {commit}, {when}.{trial}  ",
        f"Machine: {machine()}; GPUs unused. Load average at the end: {os.getloadavg()[0]:.1f}.  ",
        f"Python {platform.python_version()}, {versions}.",
        "",
        "Each row compares two ways in one run, turn by turn; the figure is a ratio of medians. CPU-seconds are those",
        f"of all threads of the process. Threads: {setting.threads} unless a note says otherwise.",
        "",
        "| | what | target | measured | met |",
        "|---|---|---|---|---|",
        *rows,
        "",
        "Notes, by row:",
        "",
        *notes,
        END,
    ]
    return "\n".join(lines)


def write_page(text: str, page: Path = PAGE) -> None:
    """Put the section between its markers; the rest of the page stays as it is."""
    before = page.read_text(encoding="utf-8") if page.exists() else INTRO
    if BEGIN in before and END in before:
        head, rest = before.split(BEGIN, 1)
        after = head + text + rest.split(END, 1)[1]
    else:
        after = before.rstrip("\n") + "\n\n" + text + "\n"
    page.parent.mkdir(exist_ok=True)
    page.write_text(after, encoding="utf-8")
