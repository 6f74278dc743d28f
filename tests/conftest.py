"""Makers of tiny data that many tests share; everything is made in the test's own folder."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stillframe.config import DataConfig, TrackingConfig, build
from tiny import DATA, picture


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow tests first: the short ones then fill the gaps between the workers, and none waits for the last long one."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture
def data() -> Callable[..., DataConfig]:
    """Section `data` for tiny images; columns and the rest by keyword."""

    def make(columns: dict[str, Any] | None = None, **values: Any) -> DataConfig:
        section = {**DATA, **values, "columns": {**DATA["columns"], **(columns or {})}}
        made: DataConfig = build("data", section)
        return made

    return make


@pytest.fixture
def class_folders(tmp_path: Path) -> Callable[..., Path]:
    """Class folders of PNG files: `make({"cat": 10, "dog": 12})` -> the folder."""

    def make(counts: dict[str, int], under: str = "source", channels: int = 3, first: int = 0) -> Path:
        folder, seed = tmp_path / under, first
        for name, count in counts.items():
            (folder / name).mkdir(parents=True, exist_ok=True)
            for index in range(count):
                Image.fromarray(picture(seed, channels=channels)).save(folder / name / f"{index:03d}.png")
                seed += 1
        return folder

    return make


@pytest.fixture
def idx_folder(tmp_path: Path) -> Callable[..., Path]:
    """idx files of 2 classes, the test ones packed: `make(train=20, test=6)` -> the folder."""

    def make(train: int = 20, test: int = 6, side: int = 8) -> Path:
        folder = tmp_path / "idx"
        folder.mkdir()
        for prefix, count, suffix in (("train", train, ""), ("t10k", test, ".gz")):
            images = np.random.default_rng(count).integers(0, 256, (count, side, side), dtype=np.uint8)
            labels = np.arange(count, dtype=np.uint8) % 2
            for name, values in ((f"{prefix}-images-idx3-ubyte", images), (f"{prefix}-labels-idx1-ubyte", labels)):
                head = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
                content = head + values.tobytes()
                (folder / f"{name}{suffix}").write_bytes(gzip.compress(content, mtime=0) if suffix else content)
        return folder

    return make


TRACKING = TrackingConfig("stillframe", None, 10.0, 5.0)


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """URI of a sqlite store of MLflow. Making one takes seconds, so that all tests of a session share it."""
    from stillframe.tracking.writer import connect, experiment_id

    folder = tmp_path_factory.mktemp("store")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    experiment_id(connect(TRACKING, uri), "stillframe", uri)
    return uri


@pytest.fixture
def client(store: str) -> Any:
    """Of the store."""
    from stillframe.tracking.writer import connect

    return connect(TRACKING, store)


@pytest.fixture(scope="session", autouse=True)
def no_workers_left() -> Iterator[None]:
    """End joblib's idle processes with the session."""
    yield
    from joblib.externals.loky import get_reusable_executor

    get_reusable_executor().shutdown(wait=True)


@pytest.fixture(scope="session")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Class folders of colour and gray pictures of two sizes, all eight views, a tuned threshold; exported."""
    from made import Stages, shipment

    folder = tmp_path_factory.mktemp("shipped")
    for at in range(40):
        place = folder / "source" / ("cat", "dog ü")[at % 2]
        place.mkdir(parents=True, exist_ok=True)
        size = {"width": 20 + 9 * (at % 3), "height": 31}
        Image.fromarray(picture(at, channels=1 if at % 5 == 0 else 3, **size)).save(place / f"{at:02d}.png")
    data = build("data", {**DATA, "resize": "pad", "symmetry": "d4"})
    stages = Stages(folder, folder / "source", data, tta="d4", threshold=0.4)
    shipment(stages).export()
    return stages
