"""The images that a trial was validated on: from DVC's cache, or from a checkout that still holds the same split."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from stillframe.drawing.frame_strip import frame_strip
from stillframe.paths import PREPARED, read_json
from stillframe.reporting.inputs import PageImage, data_uri
from stillframe.store.split import Split
from stillframe.sweeps.git_snapshot import GitError, git
from stillframe.sweeps.store import Repeat, Sweep
from stillframe.sweeps.worktree import FOLDER, cache_of
from stillframe.types import DatasetCard

MOST_PX = 200  # longer side of an image in the page
STRIP_PX = 640  # width of the frames of a clip
TINY_PX = 100  # below that the page enlarges without smoothing


@contextmanager
def prepared_folders(sweep: Sweep, run: Repeat) -> Iterator[list[Path]]:
    """Folders that may be data/prepared as a run had it, the surest first; what is yielded lives as long as `with`.

    The first is put together from DVC's cache by the hashes in the trial's commit; the others are the user's
    checkout and the slots, which by now may hold another split: `holds` says.
    """
    root = Path(sweep.facts["root"])
    with tempfile.TemporaryDirectory() as name:
        linked = _from_cache(root, run, Path(name))
        yield [*([linked] if linked else []), root / PREPARED, *sorted(root.glob(f"{FOLDER}/slot-*/{PREPARED}"))]


def _from_cache(root: Path, run: Repeat, out: Path) -> Path | None:
    """Links to the cached files of data/prepared; None when the commit or a file is not here."""
    try:
        lock = yaml.safe_load(git(root, "show", f"{run.commit}:dvc.lock"))
        outs: list[dict[str, Any]] = lock["stages"]["preprocess"]["outs"]
        digest = next(entry["md5"] for entry in outs if entry["path"] == str(PREPARED))
        store = cache_of(root) / "files" / "md5"
        for entry in read_json(store / digest[:2] / digest[2:]):
            link = out / entry["relpath"]
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(store / entry["md5"][:2] / entry["md5"][2:])
    except (GitError, OSError, ValueError, KeyError, TypeError, StopIteration):
        return None
    return out


def holds(folder: Path, rows: pd.DataFrame) -> Split | None:
    """The val split in `folder` when its rows are those of the predictions (index, id and target agree); else None."""
    try:
        split = Split(folder / "val")
    except (OSError, ValueError):
        return None
    name = "origin" if split.tiled else "source_id"  # the id itself, but of several views of a video
    targets = [column for column in rows.columns if column != "index" and column in split.table]
    # DVC or the user may have put another split into the folder since: a row that does not agree shows a wrong image.
    here = split.table[[name, *targets]]
    inside = len(rows) <= len(here) and bool((rows["index"] < len(here)).all())
    if not inside:
        return None
    same = here.iloc[rows["index"].to_numpy()]
    agree = (same[name] == rows.index.to_numpy()).all()
    return split if agree and all((same[column].to_numpy() == rows[column]).all() for column in targets) else None


def class_names(folders: list[Path], classes: int) -> list[str]:
    """From the first card.json that is there; without one, the numbers 0..K-1."""
    for folder in folders:
        try:
            names = DatasetCard.read(folder / "card.json").classes
        except (OSError, ValueError):
            continue
        if len(names) >= classes:
            return names
    return [str(number) for number in range(classes)]


def page_image(split: Split, index: int) -> PageImage:
    """A prepared image for the page; of a clip its frames side by side."""
    from PIL import Image

    prepared = split.images([index])[0]
    image_HWC = frame_strip(prepared)
    image = Image.fromarray(image_HWC[..., 0] if image_HWC.shape[-1] == 1 else image_HWC)
    image.thumbnail((MOST_PX if prepared.ndim == 3 else STRIP_PX, MOST_PX))
    kind = "PNG" if min(image.size) < TINY_PX else "JPEG"
    buffer = io.BytesIO()
    image.save(buffer, kind)
    tiny = min(image.size) < TINY_PX
    return PageImage(data_uri(buffer.getvalue(), kind.lower()), *image.size, tiny)
