"""Scores of the named experiments, over seeds, beside the published ones: `python -m bench.scores`.

Each run is the DAG itself (fetch, preprocess, augment, train, validate, evaluate) in a folder of its own under
.work/scores, one after the other. A run whose metrics are there already is not run again, so that an interrupted
measurement goes on. The table goes into docs/benchmarks.md between its markers.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import yaml
from scipy import stats

from stillframe.config.hydra_compose import compose

ROOT = Path(__file__).resolve().parents[1]
WORK = ROOT / ".work" / "scores"
PAGE = ROOT / "docs" / "benchmarks.md"
BEGIN, END = "<!-- scores:begin -->", "<!-- scores:end -->"
STAGES = ("preprocess", "augment", "train", "validate", "evaluate")


@dataclass(frozen=True)
class Row:
    """One experiment over some seeds."""

    title: str
    name: str
    overrides: list[str]
    seeds: int
    published: str


ROWS = [
    Row(
        "ELPV, all 2,624 cells, defective where p >= 0.5, 75/25",
        "elpv_best",
        ["experiment=elpv_best"],
        5,
        "Deitsch et al. 2019: SVM 82.4 %, CNN 88.4 % accuracy",
    ),
    Row(
        "ELPV, uncertain cells (1/3, 2/3) left out, 75/25",
        "elpv_best_certain",
        ["experiment=elpv_best", "data=elpv"],
        5,
        "none under this protocol",
    ),
    Row(
        "Fashion-MNIST, the textbook recipe",
        "fashion_mnist_cnn",
        ["experiment=fashion_mnist_cnn"],
        1,
        "data set's table: 2 conv layers < 100 K parameters 92.5 %; the Keras recipe 89.2 % (measured)",
    ),
    Row(
        "Fashion-MNIST, the best plain CNN",
        "fashion_mnist_best",
        ["experiment=fashion_mnist_best"],
        1,
        "data set's table: ResNet18 94.9 %, MobileNet 95.0 %, WRN40-4 96.7 %",
    ),
]


def params_of(row: Row, seed: int, extra: list[str]) -> dict:
    """The composed parameters; 75/25 keeps its validation split inside the 75."""
    return compose([*row.overrides, f"seed={seed}", *extra], ROOT / "conf")


def raw_folder(values: dict) -> Path:
    """The fetched data set, once for all runs."""
    folder = WORK / "raw" / values["data"]["fetch"]["name"].split("==")[0]
    if not (folder / "data" / "raw").exists():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "params.yaml").write_text(yaml.safe_dump(values))
        run_stage("fetch", folder)
    return folder / "data" / "raw"


def run_stage(stage: str, folder: Path) -> float:
    """Seconds of one stage; its output goes to the terminal."""
    started = time.monotonic()
    subprocess.run([sys.executable, "-m", f"stillframe.stages.{stage}"], cwd=folder, check=True, env=os.environ)
    return time.monotonic() - started


def measure(row: Row, seed: int, extra: list[str]) -> dict:
    """Metrics, seconds and summary of one run."""
    folder = WORK / f"{row.name}-{seed}"
    done = folder / "result.json"
    values = params_of(row, seed, extra)
    if done.exists() and json.loads(done.read_text())["params"] == values:
        return json.loads(done.read_text())
    raw = raw_folder(values)
    (folder / "data").mkdir(parents=True, exist_ok=True)
    for name, target in (("raw", raw), ("source", raw)):
        if not (folder / "data" / name).exists():
            (folder / "data" / name).symlink_to(target)
    (folder / "params.yaml").write_text(yaml.safe_dump(values))
    seconds = {stage: run_stage(stage, folder) for stage in STAGES}
    result = {
        "params": values,
        "seconds": seconds,
        "metrics": json.loads((folder / "artifacts/evaluate/metrics.json").read_text()),
        "intervals": json.loads((folder / "artifacts/evaluate/intervals.json").read_text()),
        "summary": json.loads((folder / "artifacts/train/summary.json").read_text()),
    }
    done.write_text(json.dumps(result))
    return result


def with_interval(values: list[float], single: list[float] | None) -> str:
    """Mean and its 95 % interval over seeds (Student's t); for one seed the bootstrap interval over test images."""
    percent = 100 * np.array(values)
    if len(percent) < 2:
        assert single is not None
        return f"{percent[0]:.1f} [{100 * single[0]:.1f}, {100 * single[1]:.1f}]"
    half = stats.t.ppf(0.975, len(percent) - 1) * percent.std(ddof=1) / math.sqrt(len(percent))
    return (
        f"{percent.mean():.1f} [{percent.mean() - half:.1f}, {percent.mean() + half:.1f}], sd {percent.std(ddof=1):.1f}"
    )


def table(rows: list[tuple[Row, list[dict]]]) -> str:
    """The section of the page."""
    import torch

    where = f"torch {torch.__version__}, {os.cpu_count()} CPU cores, no GPU"
    head = f"Measured {date.today().isoformat()} with `python -m bench.scores`; {where}."
    lines = [
        head,
        "",
        "Several seeds: the mean of the test scores, its 95 % interval (Student's t) and the deviation from seed to "
        "seed; each seed draws its own split. One seed: the score with its bootstrap interval over the test images.",
        "",
        "| experiment | seeds | test images | accuracy, % | macro F1, % | training, s (median) | published |",
        "|---|---|---|---|---|---|---|",
    ]
    for row, results in rows:
        cells = []
        for metric in ("accuracy", "f1_macro"):
            cells.append(with_interval([r["metrics"][metric] for r in results], results[0]["intervals"].get(metric)))
        images = sum(1 for _ in (WORK / f"{row.name}-0/artifacts/evaluate/confusion.csv").open()) - 1
        seconds = np.median([r["seconds"]["train"] for r in results])
        lines.append(
            f"| {row.title} (`{' '.join(row.overrides)}`) | {len(results)} | {images:,} | {cells[0]} | {cells[1]} "
            f"| {seconds:.0f} | {row.published} |"
        )
    return "\n".join(lines)


def write(section: str) -> None:
    """Put the section between its markers."""
    page = PAGE.read_text() if PAGE.exists() else "# Benchmarks\n"
    if BEGIN not in page:
        page = page.rstrip() + f"\n\n## Scores\n\n{BEGIN}\n{END}\n"
    before, rest = page.split(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n{section}\n{END}{rest.split(END)[1]}")


def main() -> None:
    """Measure what is asked for, and write all that was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=[row.name for row in ROWS], action="append")
    parser.add_argument("--set", action="append", default=[], help="a further override, e.g. trainer.threads=1")
    parser.add_argument("--no-page", action="store_true", help="measure only; another call writes the page")
    parser.add_argument("--page-only", action="store_true", help="write the page from what has been measured")
    options = parser.parse_args()
    asked = options.only
    measured = []
    for row in ROWS:
        if options.page_only or (asked and row.name not in asked):
            found = [WORK / f"{row.name}-{seed}/result.json" for seed in range(row.seeds)]
            results = [json.loads(path.read_text()) for path in found if path.exists()]
        else:
            results = [measure(row, seed, options.set) for seed in range(row.seeds)]
        if results:
            measured.append((row, results))
            print(row.title, table([(row, results)]).splitlines()[-1], flush=True)
    if not options.no_page:
        write(table(measured))


if __name__ == "__main__":
    main()
