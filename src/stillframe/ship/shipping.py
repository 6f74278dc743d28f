"""The export stage from end to end: make the file, ask it about the raw test files, hold it against the model."""

from __future__ import annotations

import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from stillframe.config import Data, Export
from stillframe.data.reading import Originals
from stillframe.data.store import Split
from stillframe.data.workers import cores
from stillframe.fit.infer import load_net
from stillframe.paths import write_json
from stillframe.ship import scoring
from stillframe.ship.facts import Facts
from stillframe.ship.graph import export
from stillframe.ship.model import Answers, Exported
from stillframe.ship.trained import Trained

MODEL, TABLE = "model.onnx", "export.json"


class Shipment:
    """One trained model on its way into a file.

    Attributes:
        facts: what decides the model's answers.
        out: the stage's folder.
    """

    def __init__(
        self,
        facts: Facts,
        data: Data,
        section: Export,
        *,
        seed: int,
        source: Path,
        test: Path,
        trained: Path,
        out: Path,
    ) -> None:
        self.facts, self.section, self.seed = facts, section, seed
        self.test, self.trained, self.out = test, trained, out
        self.threads = section.threads or cores()
        self.originals = Originals(source, data, out / "unpacked")

    def make(self) -> list[Path]:
        """Write the file of each variant."""
        net, _ = load_net(self.trained)
        path = self.out / "fp32.onnx"
        export(net, replace(self.facts, variant="fp32"), path)
        return [path]

    def model(self, said: pd.DataFrame) -> Answers:
        """What the model says of the raw test files.

        Where prepared images are kept raw these are evaluate's own answers; where they were kept as JPEG the net is
        asked once more, about pictures prepared from the source: a second compression is no fault of the file's.
        """
        if Split(self.test).encoding == "raw":
            return Answers(np.stack(said["probabilities"].to_list()), said["predicted"].to_numpy(dtype=np.int64))
        net = Trained(self.trained, self.facts, threads=self.threads)
        return scoring.answers(
            net, self.originals, list(said["id"]), batch=self.section.batch_size, threads=self.threads
        )

    def weigh(self, path: Path, said: pd.DataFrame, model: Answers) -> dict[str, Any]:
        """One row of the table: size, speed, scores over the raw test files, distance from the model."""
        section, classes = self.section, self.facts.classes
        file, label_N = Exported(path, threads=self.threads), said["label"].to_numpy(dtype=np.int64)
        answers = scoring.answers(
            file, self.originals, list(said["id"]), batch=section.batch_size, threads=self.threads
        )
        image = self.originals(str(said["id"].iloc[0])).image
        speed = scoring.speed(file, image, runs=section.latency_runs, batch=section.batch_size)
        return {
            "name": path.stem,
            "file": path.name,
            "bytes": path.stat().st_size,
            **asdict(speed),
            "metrics": scoring.scores(label_N, answers.decision_N, classes),
            "intervals": scoring.intervals(label_N, answers, classes, resamples=section.bootstrap, seed=self.seed),
            **scoring.difference(answers, model),
        }

    def ship(self, evaluated: Path) -> dict[str, Any]:
        """Make, weigh and choose; returns what export.json holds.

        Raises:
            ValueError: the file's answers are further from the model's than `export.bound` allows; with the numbers,
                which are in export.json too.
        """
        said = scoring.model_answers(evaluated)
        model = self.model(said)
        rows = [self.weigh(path, said, model) for path in self.make()]
        label_N = said["label"].to_numpy(dtype=np.int64)
        table = {
            "chosen": rows[0]["name"],
            "variants": rows,
            "model": {"metrics": scoring.scores(label_N, said["predicted"].to_numpy(np.int64), self.facts.classes)},
            "bound": asdict(self.section.bound),
            "images": len(said),
            "threads": self.threads,
            "batch_size": self.section.batch_size,
        }
        (self.out / rows[0]["file"]).replace(self.out / MODEL)
        rows[0]["file"] = MODEL
        shutil.rmtree(self.out / "unpacked", ignore_errors=True)
        write_json(self.out / TABLE, table)
        fault = scoring.refusal(rows[0], len(said), self.section.bound)
        if fault:
            raise ValueError(
                f"{self.out / rows[0]['file']} does not answer as the model does: {fault} (export.bound; "
                f"accuracy of the file {rows[0]['metrics']['accuracy']:.4f}, of the model "
                f"{table['model']['metrics']['accuracy']:.4f}; all numbers: {self.out / TABLE})"
            )
        return table
