"""The user's own images: how a folder looks, and pointing the project at it."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stillframe import config
from stillframe.config import DataConfig, hydra_compose
from stillframe.ingest.masks.sources import side_by_side
from stillframe.ingest.sources import holds_films
from stillframe.paths import CONF, PARAMS, SOURCE, write_text
from stillframe.stages.compose import link_source
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


def choose_columns(table: Path, given: dict[str, str]) -> dict[str, str | None]:
    """Which column of a table is the path, the label, and (where there is one) the split, group and weight.

    Args:
        table: CSV, TSV or Parquet with a header.
        given: what the user said, e.g. {"label": "species"}; it goes before the guesses.

    Raises:
        ValueError: the table is not readable, a named column is not there, or no column can be the path or label.
    """
    from stillframe.ingest.tables import read_frame

    names = list(read_frame(table, config.ColumnsConfig("path", "label", None, None, None, None, None, [])).columns)
    lower = {name.lower(): name for name in names}
    chosen: dict[str, str | None] = {}
    for role, guesses in GUESSES.items():
        if role in given and given[role] not in names:
            raise ValueError(f"{table} has no column {given[role]!r}: {config.nearest(given[role], names)}")
        chosen[role] = given.get(role) or next((lower[guess] for guess in guesses if guess in lower), None)
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


def mine_yaml(folder: Path, name: str, image_size: int, table: str | None, columns: dict[str, str | None]) -> str:
    """The text of conf/data/mine.yaml."""
    import yaml

    def value(of: Any) -> str:
        return yaml.safe_dump(of, default_flow_style=True, allow_unicode=True, width=4096).removesuffix("...\n").strip()

    lines = [
        "# Your own images. Written by `stillframe use`, yours to edit; what is not said here is as in folder.yaml.",
        "# `dvc repro` runs on it as long as conf/config.yaml says `- data: mine`.",
        "defaults: [folder]",
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


SUITED = {  # base of mine.yaml in conf/data -> the task, and a net for it; images keep what is selected
    "folder": None,
    "masks": ("segmentation", "unet"),
    "videos": ("video_classification", "cnn_gru"),
}


def base_of(data: DataConfig) -> str:
    """The file of conf/data that a section `data` for one's own folder begins with."""
    return "videos" if data.clip is not None else "masks" if data.masks is not None else "folder"


def select(config_yaml: Path, data: str = MINE, *, base: str = "folder") -> None:
    """In conf/config.yaml select the data set, what suits upright photographs, and no experiment; the rest stays.

    For masks and videos (`base`) also their task, and a net for it. The demo's cells have no up and no down: its
    augmentation would turn a user's photographs upside down. Videos get none: a mirror image goes the other way.

    Raises:
        ValueError: the file has no such lines in its defaults.
    """
    text = config_yaml.read_text(encoding="utf-8")
    options = [("data", data), ("augment", "none" if base == "videos" else "upright"), ("experiment", "null")]
    if (suited := SUITED[base]) is not None:
        options.append(("model", suited[1]))
        text = re.sub(r"^task: \w+", f"task: {suited[0]}", text, count=1, flags=re.MULTILINE)
    for group, option in options:
        text, found = re.subn(rf"^(\s*- {group}:\s*)[^\s#]+", rf"\g<1>{option}", text, count=1, flags=re.MULTILINE)
        if not found:
            raise ValueError(f"{config_yaml}: no line `- {group}: ...` in its defaults list")
    write_text(config_yaml, text)


def section(overrides: dict[str, Any], conf: Path = CONF, base: str = "folder") -> DataConfig:
    """Section `data` of conf/data/<base>.yaml with some values replaced."""
    values = hydra_compose.compose([f"data={base}"], conf)["data"]
    values |= {**overrides, "columns": values["columns"] | overrides.get("columns", {})}
    data: DataConfig = config.build("data", values, origin=f"{conf}/data/{base}.yaml")
    return data


def section_for(folder: Path, table: str | None, columns: dict[str, str], conf: Path = CONF) -> DataConfig:
    """Section `data` for a user's folder, before its image size is chosen.

    Raises:
        FileNotFoundError: no such folder or table.
        ValueError: as `choose_columns`.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder")
    films = "videos" if holds_films(folder) else "folder"
    if table is None:
        return section({"name": folder.name}, conf, "masks" if side_by_side(folder) else films)
    if not (folder / table).is_file():
        raise FileNotFoundError(f"{folder / table}: no such table (--table is relative to the folder)")
    chosen = choose_columns(folder / table, columns)
    named = {"name": folder.name, "format": "table", "table": table, "columns": {**chosen, "slices": []}}
    return section(named, conf, films)


def use(folder: Path, data: DataConfig, found: Audit, *, conf: Path = CONF, params: Path = PARAMS) -> Path:
    """Write conf/data/mine.yaml, select it, compose. Returns the file that was written.

    Args:
        folder: the user's images.
        data: from `section_for`.
        found: the audit of the folder.
        conf: the configuration to change.
        params: where it is composed to.

    Raises:
        ValueError: the folder would be refused; nothing is written then.
    """
    if found.error:
        raise ValueError(f"{folder} would be refused: {found.error}")
    path = conf / "data" / f"{MINE}.yaml"
    columns = {role: getattr(data.columns, role) for role in GUESSES}
    size, base = image_size_for(found.sizes), base_of(data)
    text = mine_yaml(folder.resolve(), data.name, max(32, size) if base == "masks" else size, data.table, columns)
    if base != "folder":
        text = text.replace("folder.yaml", f"{base}.yaml", 1).replace("defaults: [folder]", f"defaults: [{base}]", 1)
    write_text(path, text)
    select(conf / f"{hydra_compose.ROOT}.yaml", base=base)
    values = hydra_compose.compose([], conf)
    hydra_compose.write(values, params)
    link_source(values["data"]["path"], params.parent / SOURCE)
    return path


def show(found: Audit) -> None:
    """Print an audit: what was found, the split, what is wrong."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    facts = Table(title=escape(f"{found.name}: {found.kept} of {found.listed} images usable"), show_header=False)
    facts.add_row("layout", found.layout)
    for name in ("sizes", "formats", "modes", "left_out", "ignored", "quarantined", "exact", "leaks"):
        counts = {key: count for key, count in getattr(found, name).items() if count}
        if counts:
            shown = list(counts.items())[:6]
            more = f", and {len(counts) - 6} more" if len(counts) > 6 else ""
            facts.add_row(name.replace("_", " "), escape(", ".join(f"{key}: {count}" for key, count in shown) + more))
    console.print(facts)
    if found.counts:
        split = Table("class", *SPLITS, title="how it would be split")
        for kind in dict.fromkeys(kind for split_counts in found.counts.values() for kind in split_counts):
            split.add_row(escape(kind), *(str(found.counts.get(name, {}).get(kind, 0)) for name in SPLITS))
        console.print(split)
    for warning in found.warnings:
        console.print(f"[yellow]warning[/] {escape(warning)}", soft_wrap=True)
