"""What each command of `stillframe` takes; a command that is not here takes nothing."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Callable
from pathlib import Path

MODEL = (
    "an .onnx file, artifacts/train, runs:/ID, models:/NAME/VERSION or models:/NAME@ALIAS; "
    "without it artifacts/export/model.onnx"
)


def _folder(command: ArgumentParser) -> None:
    command.add_argument("folder", type=Path, help="class folders, split folders, a table or idx files")
    command.add_argument("--table", help="CSV or Parquet file in the folder; else the layout is found by looking")
    roles = "path, label, split, group, weight"
    command.add_argument("--columns", nargs="+", default=[], metavar="ROLE=COLUMN", help=roles)


def _stale(command: ArgumentParser) -> None:
    command.add_argument("--check", action="store_true", help="only say whether it is up to date (exit 1: no)")


def _compose(command: ArgumentParser) -> None:
    command.add_argument("overrides", nargs="*", help="in Hydra's grammar: model=resnet18 optim.lr=3e-4")
    _stale(command)


OUT = "csv, jsonl or parquet to stdout (csv), or a file that ends so; masks are written into a folder beside it"


def _predict(command: ArgumentParser) -> None:
    patterns = "image files (videos, where the model answers clips), folders, patterns such as 'in/**/*.png'"
    command.add_argument("paths", nargs="+", metavar="PATH", help=patterns)
    command.add_argument("--model", help=MODEL)
    command.add_argument("--out", default="csv", help=OUT)
    command.add_argument("--explain", action="store_true", help="heat maps into a folder beside the output file")
    drawn = "of videos, and of images with masks: copies with the answers drawn into them, into this folder"
    command.add_argument("--annotate", type=Path, metavar="FOLDER", help=drawn)
    cut = "of videos: seconds of a window; cuts all of them (without it: those longer than the model's clips)"
    command.add_argument("--window", type=float, metavar="S", help=cut)
    command.add_argument(
        "--stride", type=float, metavar="S", help="of videos: seconds from window to window (--window)"
    )
    command.add_argument("--strict", action="store_true", help="exit 1 when a file was refused")
    command.add_argument("--batch", type=int, help="images or clips at a time (32 images, 4 clips)")
    command.add_argument("--threads", type=int, default=0, help="of the model, and that read; 0: all cores")
    command.add_argument("--quiet", action="store_true", help="no progress bar, no summary")


def _serve(command: ArgumentParser) -> None:
    command.add_argument("--model", help=MODEL)
    command.add_argument("--config", type=Path, metavar="FILE", help="settings as YAML: docs/serve.md has them all")
    command.add_argument("--host", help="the address to listen at (127.0.0.1)")
    command.add_argument("--port", type=int, help="8000; 0: any free one")
    command.add_argument("--threads", type=int, help="of one model call; 0: all cores")


def _compare(command: ArgumentParser) -> None:
    command.add_argument("sweep", nargs="?", help="name or folder of a sweep; without it the newest")


def _promote(command: ArgumentParser) -> None:
    command.add_argument("trial", help="its number, or best")
    command.add_argument("--sweep", help="name or folder; without it the newest")
    command.add_argument("--repeat", type=int, default=0, help="of several seeds or folds the run of this number")
    command.add_argument("--name", help="of the registered model; without it the data set's")


def _gate(command: ArgumentParser) -> None:
    command.add_argument("--model", help="name of the registered model; without it the data set's")
    command.add_argument("--rules", default="default", help="a file, or the name of one in conf/gate")
    command.add_argument("--dry-run", action="store_true", help="only say what would come of it")
    back = "the alias back, to the champion before"
    command.add_argument("--rollback", nargs="?", const="previous", metavar="VERSION", help=back)


def _verify(command: ArgumentParser) -> None:
    command.add_argument("run", nargs="?", help="id of an MLflow run; without it the run of this checkout")
    within = "metrics this far apart are equal; files may then differ"
    command.add_argument("--within", type=float, default=0.0, help=within)
    command.add_argument("--keep", action="store_true", help="leave the clone in .work")


def _ui(command: ArgumentParser) -> None:
    command.add_argument("--host", default="127.0.0.1")
    command.add_argument("--port", type=int, default=5000)


ARGUMENTS: dict[str, Callable[[ArgumentParser], None]] = {
    "check": _folder,
    "use": _folder,
    "compose": _compose,
    "predict": _predict,
    "serve": _serve,
    "compare": _compare,
    "promote": _promote,
    "gate": _gate,
    "verify": _verify,
    "ui": _ui,
}
