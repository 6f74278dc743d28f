"""The user's own images: how a folder looks, and pointing the project at it."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stillframe import config
from stillframe.config import DataConfig, hydra_compose
from stillframe.ingest.tables import read_frame
from stillframe.ingest.target import Onboarding, Target
from stillframe.paths import CONF, PARAMS, SOURCE, write_text
from stillframe.stages.compose import link_source
from stillframe.tasks import TASKS, find_task
from stillframe.types import SPLITS

if TYPE_CHECKING:
    from stillframe.ingest.audit import Audit

MINE = "mine"  # conf/data/mine.yaml
GUESSES = {  # names of columns that mean what stillframe needs, most telling first
    "path": ("path", "file", "filename", "file_name", "filepath", "file_path", "image", "img", "image_path"),
    "label": ("label", "class", "target", "category", "y", "labels", "class_name"),
    "split": ("split", "set", "subset", "fold"),
    "group": ("group", "patient", "patient_id", "subject", "scene", "group_id"),
    "weight": ("weight", "sample_weight"),
}


def choose_columns(table: Path, overrides: dict[str, str]) -> dict[str, str | None]:
    """Which column of a table is the path, the label, and (where there is one) the split, group and weight.

    Args:
        table: CSV, TSV or Parquet with a header.
        overrides: what the user said, e.g. {"label": "species"}; it goes before the guesses.

    Raises:
        ValueError: the table is not readable, a named column is not there, or no column can be the path or label.
    """
    names = list(read_frame(table, config.ColumnsConfig("path", "label", None, None, None, None, None, [])).columns)
    lower = {name.lower(): name for name in names}
    chosen: dict[str, str | None] = {}
    for role, guesses in GUESSES.items():
        if role in overrides and overrides[role] not in names:
            raise ValueError(f"{table} has no column {overrides[role]!r}: {config.nearest(overrides[role], names)}")
        chosen[role] = overrides.get(role) or next((lower[guess] for guess in guesses if guess in lower), None)
    for role in ("path", "label"):
        if chosen[role] is None:
            raise ValueError(
                f"{table}: which column holds the {role}? It has {', '.join(names)}: say --columns {role}=NAME"
            )
    return chosen


def image_size_for(sizes: dict[str, int]) -> int:
    """Side of the prepared images, px: the power of two at or below the median side, 32 to 128.

    Small images keep their own size (below 32 px), so that nothing is blown up; 128 px is what a fine-tuned net on a
    CPU trains on in minutes, and a GPU user raises it with one edit.

    Args:
        sizes: "width x height" (px) -> images, as the audit has it; "other" is passed over.
    """
    sides = sorted(
        side for size, count in sizes.items() if " x " in size for side in [min(map(int, size.split(" x ")))] * count
    )
    if not sides:
        return 128
    median = sides[len(sides) // 2]
    return max(8, median) if median < 32 else min(128, 2 ** int(math.log2(median)))


def mine_yaml(
    folder: Path, name: str, image_size: int, table: str | None, columns: dict[str, str | None], base: str
) -> str:
    """The text of conf/data/mine.yaml, which begins with the file `base` of conf/data."""
    import yaml

    def value(of: Any) -> str:
        return yaml.safe_dump(of, default_flow_style=True, allow_unicode=True, width=4096).removesuffix("...\n").strip()

    lines = [
        f"# Your own images. Written by `stillframe use`, yours to edit; what is not said here is as in {base}.yaml.",
        "# `dvc repro` runs on it as long as conf/config.yaml says `- data: mine`.",
        f"defaults: [{base}]",
        f"name: {value(name)} # in the report and in the record",
        f"path: {value(str(folder))} # read in place: nothing is copied beside it, nothing altered",
        f"image_size: {image_size} # px, side of the prepared images; larger sees more and takes longer",
    ]
    if table is not None:
        named: dict[str, Any] = {**columns, "slices": []}
        lines += [
            "format: table",
            f"table: {value(table)} # relative to the folder",
            f"columns: {value(named)} # slices: columns by whose values the scores are reported",
        ]
    return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class FolderSetup:
    """How the project is set up for a folder.

    Attributes:
        task: name of the task that the folder looks like.
        onboarding: what that task says of such folders.
        data: section `data`, before its image size is chosen.
    """

    task: str
    onboarding: Onboarding
    data: DataConfig

    @property
    def target(self) -> Target:
        """What the task knows of its targets."""
        return find_task(self.task).target


def select(
    config_yaml: Path, data: str = MINE, *, task_name: str | None = None, setup: Onboarding | None = None
) -> None:
    """In conf/config.yaml select the data set and what suits it, and no experiment; the rest stays.

    Args:
        config_yaml: the file to change.
        data: option of conf/data.
        task_name: None leaves the selected one.
        setup: which model and augmentation suit the folder. The demo's cells have no up and no down: its augmentation
            would turn a user's photographs upside down, so even the default is another one.

    Raises:
        ValueError: the file has no such lines in its defaults.
    """
    text = config_yaml.read_text(encoding="utf-8")
    setup = setup or Onboarding("folder")
    options = [("data", data), ("augment", setup.augment), ("experiment", "null")]
    options += [("model", setup.model)] if setup.model is not None else []
    if task_name is not None:
        text = re.sub(r"^task: \w+", f"task: {task_name}", text, count=1, flags=re.MULTILINE)
    for group, option in options:
        line = rf"^(\s*- {group}:\s*)[^\s#]+"
        text, changed = re.subn(line, rf"\g<1>{option}", text, count=1, flags=re.MULTILINE)
        if not changed:
            raise ValueError(f"{config_yaml}: no line `- {group}: ...` in its defaults list")
    write_text(config_yaml, text)


def section(overrides: dict[str, Any], conf: Path = CONF, base: str = "folder") -> DataConfig:
    """Section `data` of conf/data/<base>.yaml with some values replaced."""
    values = hydra_compose.compose([f"data={base}"], conf)["data"]
    values |= {**overrides, "columns": values["columns"] | overrides.get("columns", {})}
    data: DataConfig = config.build("data", values, origin=f"{conf}/data/{base}.yaml")
    return data


def setup_for(folder: Path, table: str | None, columns: dict[str, str], conf: Path = CONF) -> FolderSetup:
    """The task, the options and the section `data` for a user's folder.

    Raises:
        FileNotFoundError: no such folder or table.
        ValueError: as `choose_columns`.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder")
    suited = {name: setup for name in TASKS if (setup := find_task(name).target.onboarding(folder, table)) is not None}
    task = min(suited, key=lambda name: suited[name].fallback)  # a task that recognises the folder goes first
    base = suited[task].base
    if table is None:
        return FolderSetup(task, suited[task], section({"name": folder.name}, conf, base))
    if not (folder / table).is_file():
        raise FileNotFoundError(f"{folder / table}: no such table (--table is relative to the folder)")
    chosen = choose_columns(folder / table, columns)
    named = {"name": folder.name, "format": "table", "table": table, "columns": {**chosen, "slices": []}}
    return FolderSetup(task, suited[task], section(named, conf, base))


def use(folder: Path, setup: FolderSetup, findings: Audit, *, conf: Path = CONF, params: Path = PARAMS) -> Path:
    """Write conf/data/mine.yaml, select it, compose. Returns the file that was written.

    Args:
        folder: the user's images.
        setup: from `setup_for`.
        findings: the audit of the folder.
        conf: the configuration to change.
        params: where it is composed to.

    Raises:
        ValueError: the folder would be refused; nothing is written then.
    """
    if findings.error:
        raise ValueError(f"{folder} would be refused: {findings.error}")
    path, data, base = conf / "data" / f"{MINE}.yaml", setup.data, setup.onboarding.base
    columns = {role: getattr(data.columns, role) for role in GUESSES}
    size = max(setup.onboarding.min_size, image_size_for(findings.sizes))
    write_text(path, mine_yaml(folder.resolve(), data.name, size, data.table, columns, base))
    select(conf / f"{hydra_compose.ROOT}.yaml", task_name=setup.task, setup=setup.onboarding)
    values = hydra_compose.compose([], conf)
    hydra_compose.write(values, params)
    link_source(values["data"]["path"], params.parent / SOURCE)
    return path


def show(findings: Audit) -> None:
    """Print an audit: what was findings, the split, what is wrong."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    facts = Table(
        title=escape(f"{findings.name}: {findings.usable} of {findings.listed} images usable"), show_header=False
    )
    facts.add_row("layout", findings.layout)
    for name in ("sizes", "formats", "modes", "left_out", "ignored", "quarantined", "exact", "leaks"):
        counts = {key: count for key, count in getattr(findings, name).items() if count}
        if counts:
            listed = list(counts.items())[:6]
            more = f", and {len(counts) - 6} more" if len(counts) > 6 else ""
            facts.add_row(name.replace("_", " "), escape(", ".join(f"{key}: {count}" for key, count in listed) + more))
    console.print(facts)
    if findings.counts:
        split = Table("class", *SPLITS, title="how it would be split")
        for kind in dict.fromkeys(kind for split_counts in findings.counts.values() for kind in split_counts):
            split.add_row(escape(kind), *(str(findings.counts.get(name, {}).get(kind, 0)) for name in SPLITS))
        console.print(split)
    for warning in findings.warnings:
        console.print(f"[yellow]warning[/] {escape(warning)}", soft_wrap=True)
