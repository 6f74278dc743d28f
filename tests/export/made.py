"""A source folder, its prepared splits and an untrained net with frozen choices: what the export stage reads."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from stillframe.config import DataConfig, ExportConfig, ParityBound, PruneConfig, TrainerConfig, build
from stillframe.config.hydra_compose import compose
from stillframe.evaluation.write_tables import rounded_scores
from stillframe.export.exporter import Exporter, ExportPaths
from stillframe.export.variants import ExportContext
from stillframe.inference.split_predictor import SplitPredictor
from stillframe.inference.trained_model import read_metadata
from stillframe.ingest.prepare import prepare
from stillframe.model_metadata import ModelMetadata
from stillframe.models import weights
from stillframe.models.build import NetworkSpec, rebuild
from stillframe.paths import write_json
from stillframe.tasks import find_task
from stillframe.training.spec import TrainingSpec
from stillframe.types import DatasetCard

ROOT = Path(__file__).parents[2]

SECTION = ExportConfig(
    variants=["fp32"],
    choose="fp32",
    within={"f1_macro": 0.5},
    bound=ParityBound(probability=0.001, decisions=0.0),
    batch_size=8,
    threads=1,
    latency_runs=3,
    bootstrap=20,
    calibrate=8,
    sparse=PruneConfig(share=0.6, epochs=1, lr=1e-3),
    slim=PruneConfig(share=0.5, epochs=1, lr=1e-3),
)
TRAINER = {"max_epochs": 1, "batch_size": 4, "monitor": "f1_macro", "early_stopping": None, "accelerator": "cpu"}
TRAINER |= {"devices": 0, "num_nodes": 1, "strategy": "auto", "precision": "fp32", "channels_last": True}
TRAINER |= {"compile": False, "threads": 1, "workers": 0, "checkpoint_seconds": 60.0, "max_nonfinite": 3}
TRAINER |= {"find_lr": False, "find_batch_size": False, "overfit_batches": 0, "limit_batches": 0, "resume_anyway": []}


def trainer() -> TrainerConfig:
    made: TrainerConfig = build("trainer", TRAINER)
    return made


class Stages:
    """What the stages before export leave in a folder.

    Attributes:
        metadata: of the model.
    """

    task = "classification"

    def __init__(
        self, folder: Path, source: Path, data: DataConfig, *, tta: str = "none", threshold: float | None = None
    ):
        self.source, self.data = source, data
        self.prepared, self.trained = folder / "data/prepared", folder / "artifacts/train"
        self.validated, self.evaluated = folder / "artifacts/validate", folder / "artifacts/evaluate"
        self.exported = folder / "artifacts/export"
        prepare(source, data, find_task(self.task).target, seed=0, out=self.prepared, work=folder / ".work")
        card = DatasetCard.read(self.prepared / "card.json")
        torch.manual_seed(0)
        spec = self.spec(card)
        net = rebuild(spec).eval()
        self.trained.mkdir(parents=True)
        weights.save(net, self.trained / "model.safetensors")
        write_json(self.trained / "model.json", {"task": self.task, **asdict(spec)})
        run = {"run_id": "r1", "git_commit": "c1", "journal": "j1", "tracking_uri": f"sqlite:///{folder}/m.db"}
        write_json(self.trained / "run.json", run)
        choices: dict[str, Any] = {"temperature": 1.3, "threshold": threshold, "tta": tta, "bins": 15, "notes": []}
        write_json(self.validated / "choices.json", choices)
        self.evaluated.mkdir(parents=True)
        self.evaluate(card, choices)
        self.metadata: ModelMetadata = read_metadata(self.trained, self.validated, self.prepared / "card.json", data)

    def spec(self, card: DatasetCard) -> NetworkSpec:
        """A net that is quick to make; the small deviation makes an untrained one decide by the picture."""
        deviation = [0.05] * card.channels
        return NetworkSpec("plain_cnn", len(card.classes), card.channels, card.height, card.mean, deviation, 0.0, 0.0)

    def evaluate(self, card: DatasetCard, choices: dict[str, Any]) -> None:
        """Write predictions.parquet, and what the task writes beside it."""
        predictor = SplitPredictor(self.trained, self.prepared / "test", trainer(), choices["tta"], 8)
        predictions = find_task(self.task).evaluation.predict(predictor, choices, card, self.evaluated)
        predictions.to_parquet(self.evaluated / "predictions.parquet", index=False)
        names = find_task(self.task).evaluation.names(card)
        write_json(self.evaluated / "metrics.json", rounded_scores(find_task(self.task), predictions, names, choices))


def shipment(stages: Stages, section: ExportConfig = SECTION) -> Exporter:
    """The export stage's work on made stages."""
    values = compose(["data=folder", "augment=light", "model=plain_cnn"], ROOT / "conf")
    sections = [build(name, values[name]) for name in ("augment", "model", "optim")]
    prepared = stages.prepared
    card = DatasetCard.read(prepared / "card.json")
    nothing = prepared / "nothing"
    spec = TrainingSpec(stages.task, 0, *sections, trainer(), card, prepared / "train", prepared / "val", nothing)
    stages.exported.mkdir(parents=True, exist_ok=True)
    places = ExportPaths(stages.source, prepared / "test", stages.evaluated, stages.exported)
    return Exporter(ExportContext(stages.metadata, section, stages.trained, spec, seed=0), stages.data, places)
