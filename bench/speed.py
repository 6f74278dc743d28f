"""How fast it is, as ratios in one run: `python -m bench.speed` (about ten minutes on two cores; alone on them).

Each row of DESIGN section 8 that exists today is a function in a file `rows_*.py`; it runs in a process of its own, on
a terminal of its own (so that progress bars cost what they cost), with its threads said. The table goes into
docs/benchmarks.md between its markers; the rest of that page is left alone.

    python -m bench.speed                      all rows
    python -m bench.speed --only 4 --quick     one row, small, while developing: printed, not written
    python -m bench.speed --images DIR         class folders of real images for row 4
"""

from __future__ import annotations

import argparse
import json
import os
import pty
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from importlib import import_module
from pathlib import Path

from bench.measuring import ROOT, Result, Setting, quiet_environment, section, write_page

ROWS = {  # number -> function
    1: "rows_dag:second_repro",
    2: "rows_training:real_net",
    3: "rows_training:waiting",
    4: "rows_data:data_path",
    5: "rows_training:small_steps",
    6: "rows_keras:keras_epoch",
    7: "rows_dag:stages",
    8: "rows_data:preprocess",
    9: "rows_ship:runtime",
    10: "rows_sweeps:cached_trial",
    11: "rows_sweeps:grid",
    12: "rows_sweeps:slots",
    13: "rows_ship:predict_rate",
    14: "rows_serving:batching",
    15: "rows_serving:against_mlflow",
    16: "rows_segmentation:waiting",
    17: "rows_video:decoding",
    18: "rows_video:waiting",
}
TOGETHER = (1, 7, 10, 11, 12)  # rows that share one clone


def find(number: int) -> Callable[[Setting], list[Result]]:
    """The function of a row."""
    module, name = ROWS[number].split(":")
    found: Callable[[Setting], list[Result]] = getattr(import_module(f"bench.{module}"), name)
    return found


def in_own_process(number: int, setting: Setting) -> list[Result]:
    """Measure one row in a fresh Python on a pseudo-terminal; what it prints is kept in the work folder."""
    answer, log = setting.work / f"row{number}.json", setting.work / f"row{number}.log"
    place = setting.work / f"row{number}" if number not in TOGETHER else setting.work
    place.mkdir(exist_ok=True)
    words = [
        "--row",
        number,
        "--work",
        place,
        "--answer",
        answer,
        "--threads",
        setting.threads,
        "--keras",
        setting.keras,
    ]
    words += ["--quick"] if setting.quick else []
    words += ["--images", setting.images] if setting.images else []
    env = {**quiet_environment(setting.threads, ROOT, ROOT / "src"), "TERM": "xterm-256color", "COLUMNS": "120"}
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "bench.speed", *map(str, words)]
    process = subprocess.Popen(command, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs)
    os.close(theirs)
    drain = threading.Thread(target=_drain, args=(ours, log), daemon=True)
    drain.start()
    code = process.wait()
    drain.join(timeout=10)
    if code or not answer.exists():
        last = log.read_text(encoding="utf-8", errors="replace")[-1500:]
        print(last, file=sys.stderr)
        return [Result(number, ROWS[number], "-", f"failed with exit code {code}", False, f"`{last.split()[-1:]}`")]
    return [Result(**values) for values in json.loads(answer.read_text(encoding="utf-8"))]


def _drain(terminal: int, log: Path) -> None:
    """Read a terminal to its end, which Linux reports as an OSError."""
    with log.open("wb") as file:
        while True:
            try:
                data = os.read(terminal, 1 << 16)
            except OSError:
                return
            if not data:
                return
            file.write(data)
            file.flush()


def kept(folders: list[Path]) -> list[Result]:
    """The rows that `--keep` left in these folders, by number; of a row that lies in several the last one's."""
    files = {path.name: path for folder in folders for path in sorted(folder.glob("row*.json"))}
    found = [Result(**values) for path in files.values() for values in json.loads(path.read_text(encoding="utf-8"))]
    return sorted(found, key=lambda result: result.number)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.speed", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", type=int, action="append", choices=ROWS, help="these rows only; printed, not written")
    parser.add_argument("--quick", action="store_true", help="small sizes; printed, not written")
    parser.add_argument("--images", type=Path, help="class folders of real images for row 4")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--keep", type=Path, help="work in this folder and keep it, with the logs of the rows")
    parser.add_argument("--write", action="store_true", help="write the page even with --only or --quick")
    parser.add_argument("--page-from", type=Path, nargs="+", help="write the page from rows kept there; later ones win")
    parser.add_argument("--note", default="", help="for the page: what was measured when")
    parser.add_argument("--keras", type=Path, default=ROOT / ".work/bench/keras", help="environment for row 6")
    for name, kind in (("--row", int), ("--work", Path), ("--answer", Path)):
        parser.add_argument(name, type=kind, help=argparse.SUPPRESS)  # of the row's own process
    return parser.parse_args()


def main() -> None:
    """Measure and write the page."""
    given = arguments()
    images = given.images.resolve() if given.images else None
    if given.row:
        setting = Setting(given.work, given.threads, given.quick, images, given.keras)
        results = find(given.row)(setting)
        given.answer.write_text(json.dumps([asdict(result) for result in results]), encoding="utf-8")
        return
    if given.page_from:
        write_page(
            section(kept(given.page_from), Setting(Path(), given.threads, False, images, given.keras), given.note)
        )
        return
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="stillframe-bench-") as name:
        work = given.keep.resolve() if given.keep else Path(name)
        work.mkdir(parents=True, exist_ok=True)
        setting = Setting(work, given.threads, given.quick, images, given.keras.absolute())
        results = []
        for number in sorted(given.only or ROWS):
            at = time.perf_counter()
            for result in in_own_process(number, setting):
                results.append(result)
                verdict = {True: "met", False: "NOT MET", None: ""}[result.met]
                print(
                    f"{number}  {result.what}: {result.measured} ({result.target}) {verdict}\n   {result.note}",
                    flush=True,
                )
            print(f"   row {number} took {time.perf_counter() - at:.0f} s", flush=True)
    if given.write or not (given.only or given.quick):
        write_page(section(results, setting, f"{(time.perf_counter() - started) / 60:.1f} minutes"))


if __name__ == "__main__":
    main()
