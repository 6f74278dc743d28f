"""An exported model that the tests of this room share."""

from __future__ import annotations

import pytest
from made import Stages, shipment
from PIL import Image

from stillframe.config import DataConfig, build
from tiny import DATA, picture


@pytest.fixture(scope="session")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Stages:
    """Class folders of colour and gray pictures of two sizes, all eight views, a tuned threshold; exported."""
    folder = tmp_path_factory.mktemp("shipped")
    for at in range(40):
        place = folder / "source" / ("cat", "dog ü")[at % 2]
        place.mkdir(parents=True, exist_ok=True)
        size = {"width": 20 + 9 * (at % 3), "height": 31}
        Image.fromarray(picture(at, channels=1 if at % 5 == 0 else 3, **size)).save(place / f"{at:02d}.png")
    data: DataConfig = build("data", {**DATA, "resize": "pad", "symmetry": "d4"})
    stages = Stages(folder, folder / "source", data, tta="d4", threshold=0.4)
    shipment(stages).ship()
    return stages
