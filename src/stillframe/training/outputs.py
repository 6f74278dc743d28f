"""What a training leaves: its MLflow run, and the files of artifacts/train."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
import yaml

from stillframe.config import flat
from stillframe.paths import PARAMS, replacing, write_json
from stillframe.tracking import lineage
from stillframe.tracking.record import RUN, RunRecord, tracking_uri
from stillframe.training.callbacks import BestWeights

LATER = (
    "train",
    "validate",
    "evaluate",
    "export",
    "report",
)  # stages whose entries in dvc.lock are still of an earlier run

if TYPE_CHECKING:
    from stillframe.training.loop import Training


def open_record(training: Training) -> RunRecord | None:
    """The MLflow record: a new run, or the one that a resumed training began. Rank 0 only."""
    if training.rank != 0:
        return None
    tracking, state = training.tracking, training.state.recall()
    fresh = "journal" not in state
    if fresh:
        training.state.remember(journal=RunRecord.new_name(), uri=tracking_uri(tracking))
        state = training.state.recall()
    record = RunRecord(state["journal"], tracking, uri=state["uri"])
    record.status("RUNNING")
    if fresh:
        describe(record, training)
    else:
        record.tags({"stillframe.resumed": "yes"})
    return record


def describe(record: RunRecord, training: Training) -> None:
    """What the run came from: parameters, code, data, packages, machine."""
    spec, code = training.spec, lineage.code()
    composed = yaml.safe_load(PARAMS.read_text(encoding="utf-8")) if PARAMS.exists() else {}
    record.params(flat(composed) | training.params())
    tags = {
        "mlflow.runName": f"{spec.card.name}-{spec.model.name}-{spec.augment.name}",
        "mlflow.source.name": "dvc repro",
    }
    if os.environ.get(RUN):  # a trial of a sweep, which has named it
        tags = {}
    tags |= {"mlflow.source.git.commit": code["git_commit"] or "none", "stillframe.dirty": str(code["dirty"])}
    tags |= {f"version.{name}": version for name, version in lineage.versions().items()}
    tags |= {f"machine.{name}": value for name, value in lineage.machine().items()}
    tags |= lineage.dvc_tags(lineage.dvc_hashes(without=LATER))
    record.tags(tags)
    changes = lineage.uncommitted()
    if changes:
        (training.state.folder / "uncommitted.diff").write_bytes(changes)
        record.artifact(training.state.folder / "uncommitted.diff", "lineage")
    for name in ("params.yaml", "requirements.lock"):
        if Path(name).exists():
            record.artifact(Path(name), "lineage")
    for split in ("train", "val", "test"):
        counts = yaml.safe_dump(spec.card.counts.get(split, {}), default_flow_style=True)[:1000]
        digest = spec.card.split_hash
        record.dataset(f"{spec.card.name}/{split}", digest, f"data/prepared/{split}", split, counts)


def write_outputs(
    training: Training,
    decided: dict[str, Any],
    best: BestWeights,
    trainer: pl.Trainer,
    seconds: float,
    record: RunRecord,
) -> None:
    """Write artifacts/train: best weights, what rebuilds the network, history, run id; then delete the resume state."""
    spec, state, out = training.spec, training.state, training.trained
    if best.value is None:
        raise ValueError(
            f"trainer.monitor = {spec.trainer.monitor!r} was never finite: no epoch can be called the best"
        )
    out.mkdir(parents=True, exist_ok=True)
    for source, target in (("best.safetensors", "model.safetensors"), ("history.csv", "history.csv")):
        with replacing(out / target) as temporary:
            shutil.copyfile(state.folder / source, temporary)
    write_json(out / "model.json", {"task": spec.task, **training.net.spec.json()})
    summary = summarise(training, decided, best, trainer, seconds)
    write_json(out / "summary.json", summary)
    record.metrics(
        {
            "train/seconds": seconds,
            "train/best_epoch": best.epoch,
            f"train/best_{spec.trainer.monitor}": best.value,
        }
    )
    for name in ("model.safetensors", "model.json", "history.csv", "summary.json"):
        record.artifact(out / name, "model" if name.startswith("model") else "train")
    record.status("FINISHED")
    journal = record.journal.path.stem
    run_id = record.close()
    write_json(
        out / "run.json",
        {
            "run_id": run_id,
            "journal": journal,
            "experiment": training.tracking.experiment,
            "tracking_uri": record.uri,
            **lineage.code(),
            "versions": lineage.versions(),
            "dvc": lineage.dvc_hashes(without=LATER),
        },
    )
    shutil.rmtree(state.folder)


def summarise(
    training: Training, decided: dict[str, Any], best: BestWeights, trainer: pl.Trainer, seconds: float
) -> dict[str, Any]:
    """What happened, in numbers."""
    epochs = trainer.current_epoch
    parameters = sum(p.numel() for p in training.net.parameters())
    learnt = sum(p.numel() for p in training.net.parameters() if p.requires_grad)
    return {
        "best_epoch": best.epoch,
        "epochs": epochs,
        "stopped_early": epochs < training.spec.trainer.max_epochs,
        "monitor": training.spec.trainer.monitor,
        "best_value": best.value,
        "seconds": round(seconds, 2),
        "images_per_s": round(len(training.data.train) * epochs / max(seconds, 1e-9), 1),
        "parameters": parameters,
        "trainable_parameters": learnt,
        "device": training.device,
        "devices": training.world,
        **decided,
    }
