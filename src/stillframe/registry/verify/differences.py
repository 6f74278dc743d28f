"""What differs between a run and its rebuild: results decide the verdict, surroundings explain it."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from stillframe.registry.verify.record import RecordedRun

TIMES = ("seconds", "images_per_s", "latency")  # beginnings of names of what no two runs share
OWN = ("artifacts/train", "artifacts/report", "artifacts/export", "params.yaml")  # name their run or its times: by file
RUN_OF_FILE = "stillframe.run_id"  # among an exported file's metadata
ABSENT = "(absent)"


@dataclass(frozen=True)
class ValueDifference:
    """A value of the record that the rebuild does not have, or has otherwise."""

    kind: str
    name: str
    recorded: str
    rebuilt: str


@dataclass
class VerifyReport:
    """What was compared, and what differs.

    Attributes:
        compared: kind -> how many.
        results: differences of metrics, files and outputs; one of them, and the run is not reproduced.
        surroundings: differences of inputs, packages and machine, which may explain those.
    """

    compared: dict[str, int] = field(default_factory=dict)
    results: list[ValueDifference] = field(default_factory=list)
    surroundings: list[ValueDifference] = field(default_factory=list)

    @property
    def equal(self) -> bool:
        """Whether every result is the same."""
        return not self.results


def compare(recorded: RecordedRun, rebuilt: RecordedRun, lock: dict[str, Any], within: float) -> VerifyReport:
    """Every metric, file and DVC hash of two records of one run.

    Args:
        recorded: the run.
        rebuilt: its rebuild.
        lock: `stages` of the rebuild's dvc.lock.
        within: how far two metrics may lie apart. Above 0, files and what DVC knows of results count as explanation
            only: on a GPU a sum's order may change, and no byte stays.
    """
    comparison = VerifyReport()
    metrics = _metrics(recorded.metrics, rebuilt.metrics, within)
    files = _pairs("file", _listed(recorded.folder), _listed(rebuilt.folder))
    inputs, outputs = _hashes(recorded.lock(), lock)
    comparison.compared = {
        "metrics": len(_untimed(recorded.metrics)),
        "files": len(_listed(recorded.folder)),
        "DVC hashes": len(_flat(recorded.lock())),
    }
    # Exactly equal metrics are only to be expected where every byte is: `within` > 0 says that it is not (a GPU).
    comparison.results = metrics
    comparison.surroundings = [*inputs, *_tags(recorded.tags, rebuilt.tags), *_pins(recorded.folder)]
    (comparison.surroundings if within > 0 else comparison.results).extend([*files, *outputs])
    return comparison


def _timed(name: str) -> bool:
    return name.rsplit("/", 1)[-1].startswith(TIMES)


def _untimed(metrics: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if not _timed(name)}


def _pairs(kind: str, old: dict[str, Any], new: dict[str, Any]) -> list[ValueDifference]:
    return [
        ValueDifference(kind, name, str(old.get(name, ABSENT)), str(new.get(name, ABSENT)))
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]


def _metrics(old: dict[str, float], new: dict[str, float], within: float) -> list[ValueDifference]:
    def same(name: str) -> bool:
        # NaN in both is the same: a score that is undefined on this split
        first, second = old.get(name), new.get(name)
        if first is None or second is None:
            return False
        return abs(first - second) <= within or (math.isnan(first) and math.isnan(second))

    names = sorted(_untimed(old).keys() | _untimed(new).keys())
    values = [(name, *(repr(side[name]) if name in side else ABSENT for side in (old, new))) for name in names]
    return [ValueDifference("metric", name, first, second) for name, first, second in values if not same(name)]


def _listed(folder: Path) -> dict[str, str]:
    """Path -> digest of each file; of a JSON file without the times in it, of an exported one without its run."""
    differing = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not name.startswith("lineage/"):
            differing[name] = _digest(path)
    return differing


def _digest(path: Path) -> str:
    raw = path.read_bytes()
    if path.suffix == ".json":
        raw = json.dumps(_timeless(json.loads(raw)), sort_keys=True).encode()
    elif path.suffix == ".onnx":
        raw = _without_run(raw)
    return f"sha256 {hashlib.sha256(raw).hexdigest()[:16]}"


def _without_run(raw: bytes) -> bytes:
    """An exported file without the name of its run, which a rebuild cannot share."""
    import onnx

    model = onnx.load_model_from_string(raw)
    entries = [entry for entry in model.metadata_props if entry.key != RUN_OF_FILE]
    del model.metadata_props[:]
    model.metadata_props.extend(entries)
    return bytes(model.SerializeToString(deterministic=True))


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(inner) for key, inner in value.items() if not _timed(key)}
    return [_timeless(inner) for inner in value] if isinstance(value, list) else value


def _flat(stages: dict[str, Any]) -> dict[str, str]:
    """DVC's hashes by "<stage>/deps|outs/<path>"; those of what names its own run left out."""
    return {
        f"{stage}/{kind}/{entry['path']}": str(entry.get("md5", ""))
        for stage, facts in stages.items()
        for kind in ("deps", "outs")
        for entry in facts.get(kind, [])
        if not str(entry["path"]).startswith(OWN)
    }


def _hashes(old: dict[str, Any], new: dict[str, Any]) -> tuple[list[ValueDifference], list[ValueDifference]]:
    """(inputs, outputs) that DVC sees differ. An input is what no stage made: code, conf, the user's images."""
    before = _flat(old)
    if not before:
        return [], []
    after = {name: value for name, value in _flat(new).items() if name.split("/")[0] in old}
    outputs = {str(out["path"]) for facts in old.values() for out in facts.get("outs", [])}

    def is_output(name: str) -> bool:
        path = name.split("/", 2)[2]
        return any(path == out or path.startswith(f"{out}/") for out in outputs)

    # A path is listed once: several stages read it, and those after the one that wrote it repeat its hash.
    first: dict[str, ValueDifference] = {}
    for difference in _pairs("DVC hash", before, after):
        first.setdefault(difference.name.split("/", 2)[2], difference)
    differing = list(first.values())
    inputs = [difference for difference in differing if not is_output(difference.name)]
    return inputs, [difference for difference in differing if is_output(difference.name)]


def _tags(old: dict[str, str], new: dict[str, str]) -> list[ValueDifference]:
    """Package versions and machine, as both runs recorded them; what one of them did not record is no difference."""
    differing = []
    for kind, prefix in (("package", "version."), ("machine", "machine.")):
        shared = [name for name in old if name.startswith(prefix) and name in new]
        differing += _pairs(kind, *({name.removeprefix(prefix): tags[name] for name in shared} for tags in (old, new)))
    return differing


def _pins(folder: Path) -> list[ValueDifference]:
    """Packages of the recorded requirements.lock that are here in another version; those that are not here left out."""
    path = folder / "lineage/requirements.lock"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    pins = dict(line.split(" ;")[0].strip().split("==", 1) for line in lines if "==" in line and line[:1] != "#")
    differing = []
    for name, version in sorted(pins.items()):
        try:
            here = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
        if here.split("+")[0] != version.split("+")[0]:  # 2.15.0+cpu is 2.15.0, built for other devices
            differing.append(ValueDifference("pin", name, version, here))
    return differing
