"""A prepared data set of real 8 x 8 px digits, and a way to train on it as the stage does."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from sklearn.datasets import load_digits

from masked import write_scenes
from stillframe import config
from stillframe.config.hydra_compose import compose
from stillframe.store.split import SplitWriter
from stillframe.types import DatasetCard
from tiny import LABEL

REPOSITORY = Path(__file__).parents[2]


def write_digits(folder: Path, sizes: dict[str, int]) -> None:
    data = load_digits()
    images, labels = (data.images * 255 / 16).astype(np.uint8), data.target
    order = np.random.default_rng(0).permutation(len(labels))
    counts, first = {}, 0
    for split, size in sizes.items():
        rows = order[first : first + size]
        first += size
        with SplitWriter(folder / split, height=8, width=8, channels=1, encoding="raw", targets=[LABEL]) as writer:
            writer.write([row(int(i), int(labels[i]), images[i]) for i in rows])
        counts[split] = {str(k): int((labels[rows] == k).sum()) for k in range(10)}
    card = DatasetCard("digits", [str(k) for k in range(10)], counts, 1, 8, 8, [0.3], [0.37], [], "0" * 64)
    card.write(folder / "card.json")


def row(number: int, label: int, image: np.ndarray) -> dict:
    return {
        "id": str(number),
        "label": label,
        "weight": 1.0,
        "group": str(number),
        "source_id": str(number),
        "source_width": 8,
        "source_height": 8,
        "source_mode": "L",
        "slices": "{}",
        "image": image.tobytes(),
    }


class Workplace:
    """A folder with prepared digits and a params.yaml, in which stages run."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.values = compose(["experiment=digits_smoke"], REPOSITORY / "conf")
        self.set("trainer.max_epochs", 2)
        self.set("trainer.batch_size", 32)
        self.set("trainer.threads", 1)
        self.set("trainer.early_stopping", None)
        self.set("trainer.accelerator", "cpu")
        self.set("tracking.flush_s", 30.0)

    def set(self, key: str, value) -> "Workplace":
        section, _, name = key.partition(".")
        if name:
            self.values[section][name] = value
        else:
            self.values[section] = value
        (self.folder / "params.yaml").write_text(yaml.safe_dump(self.values))
        return self

    def params(self, *sections: str):
        return config.read_params(*sections, path=self.folder / "params.yaml")

    def validation(self):
        """The arguments of the validate stage."""
        task, data, *sections = self.params("task", "data", "trainer", "validate", "tracking")
        return task, data.symmetry, *sections

    def environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW", "DVC_"))}
        return {**kept, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}

    def start(self, stage: str) -> subprocess.Popen:
        with (self.folder / "log.txt").open("a") as log:
            return subprocess.Popen(
                [sys.executable, "-m", f"stillframe.stages.{stage}"],
                cwd=self.folder,
                stdout=log,
                stderr=log,
                env=self.environment(),
                start_new_session=True,
            )

    def stage(self, stage: str) -> int:
        return self.start(stage).wait(timeout=240)

    def log(self) -> str:
        return (self.folder / "log.txt").read_text()

    def checkpoints(self) -> list[Path]:
        return list((self.folder / ".resume").glob("*/last.ckpt"))


@pytest.fixture
def workplace(tmp_path) -> Workplace:
    write_digits(tmp_path / "data/prepared", {"train": 320, "val": 63, "test": 63})
    return Workplace(tmp_path)


@pytest.fixture
def here(workplace, monkeypatch) -> Workplace:
    """The same, as the working directory of this process."""
    monkeypatch.chdir(workplace.folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return workplace


SEGMENTATION = {
    "task": "segmentation",
    "data.image_size": 32,
    "model.name": "unet",
    "model.encoder": "test_resnet",
    "optim.loss": "cross_entropy+dice",
    "trainer.batch_size": 16,
    "trainer.monitor": "iou_macro",
}


@pytest.fixture
def masked(tmp_path) -> Workplace:
    """The same with pictures of 32 px and their masks, and a small U-Net."""
    write_scenes(tmp_path / "data/prepared", {"train": 96, "val": 21, "test": 21})
    place = Workplace(tmp_path)
    for key, value in SEGMENTATION.items():
        place.set(key, value)
    return place


@pytest.fixture
def masked_here(masked, monkeypatch) -> Workplace:
    """As the working directory of this process."""
    monkeypatch.chdir(masked.folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return masked


def write_walks(folder: Path, sizes: dict[str, int], shown: int = 4, stored: int = 6) -> None:
    """Clips of frames of 8 px: a bright bar goes to the right or to the left; two views of a val or test video.

    Train clips are `stored` frames long, of which training shows `shown`.
    """
    random, counts, clip = np.random.default_rng(0), {}, {"frames": shown, "stored": stored, "views": 2}
    clip |= {"fps": None, "sampling": "uniform", "reversible": False}
    for split, size in sizes.items():
        views, frames = (1, stored) if split == "train" else (2, shown)
        with SplitWriter(
            folder / split, height=8, width=8, channels=1, encoding="raw", targets=[LABEL], frames=frames
        ) as writer:
            for number in range(size):
                first = random.integers(8)
                for view in range(views):
                    image = random.integers(0, 80, (frames, 8, 8, 1), dtype=np.uint8)
                    for at in range(frames):
                        image[at, :, (first + (at if number % 2 else -at)) % 8] += 150
                    more = {"id": f"{number}@{view}" if views > 1 else str(number), "source_id": str(number)}
                    writer.write([{**row(number, number % 2, image), **more}])
        counts[split] = {"left": (size + 1) // 2, "right": size // 2}
    card = DatasetCard(
        "walks", ["left", "right"], counts, 1, 8, 8, [0.25], [0.25], [], "0" * 64, frames=shown, clip=clip
    )
    card.write(folder / "card.json")


VIDEO = {
    "task": "video_classification",
    "model.name": "plain_cnn",
    "model.temporal": "gru",
    "trainer.batch_size": 16,
    "augment.temporal": {"jitter": True, "reverse": 0.0, "speed": 0.3},
    "optim.lr": 3e-3,
}


@pytest.fixture
def walks(tmp_path) -> Workplace:
    """The same with clips of bars that go to the left or to the right, and a small CNN with a GRU."""
    write_walks(tmp_path / "data/prepared", {"train": 64, "val": 21, "test": 21})
    place = Workplace(tmp_path)
    for key, value in VIDEO.items():
        place.set(key, value)
    return place


@pytest.fixture
def long_walks_here(walks_here) -> Workplace:
    """Clips that are stored twice as long as they are shown, and attention over their frames."""
    write_walks(walks_here.folder / "data/prepared", {"train": 24, "val": 8, "test": 8}, shown=16, stored=32)
    network = compose(["model=cnn_attention"], REPOSITORY / "conf")["model"]
    walks_here.set("model", network | {"name": "plain_cnn"}).set("augment.temporal", None)
    return walks_here.set("trainer.max_epochs", 1)


@pytest.fixture
def walks_here(walks, monkeypatch) -> Workplace:
    """As the working directory of this process."""
    monkeypatch.chdir(walks.folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return walks
