"""Demo data sets that are made from published ones: `data.fetch.kind: made`.

What a maker makes depends on its sources alone. The makers lie beside the tasks that they are for, in
`tasks/<name>/demo_data.py`, as the dictionary `DEMO_DATA`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from stillframe.config import FetchConfig, nearest

FASHION_MNIST = FetchConfig(  # as conf/data/fashion_mnist.yaml
    kind="debian",
    name="dataset-fashion-mnist",
    sha256="39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0",
    folder="usr/share/datasets/fashion-mnist",
)
ELPV = FetchConfig(  # as conf/data/elpv.yaml
    kind="package",
    name="elpv-dataset==1.0.0.post1",
    sha256="85e31c1126ee9b48e62d3a0232c58f58b2d189b0814a45c13642fa0415af4a4c",
    folder="elpv_dataset/data",
)


@dataclass(frozen=True)
class DemoData:
    """How a demo data set is made.

    Attributes:
        sources: what it is made from, by the names that `make` knows.
        make: writes the data set; takes the folders of the sources by name, and an empty folder.
    """

    sources: dict[str, FetchConfig]
    make: Callable[[dict[str, Path], Path], None]


Get = Callable[[FetchConfig, Path, Path], None]  # brings a published data set into an empty folder


def make_demo_data(name: str, makers: Mapping[str, DemoData], out: Path, work: Path, get: Get) -> None:
    """Bring the sources of a demo data set into `work` by `get`, and make it in the empty folder `out`.

    Raises:
        ValueError: no demo data of that name, or a source that cannot be had.
    """
    if name not in makers:
        raise ValueError(f"data.fetch.name = {name!r}: of kind made there is: {nearest(name, makers)}")
    folders = {}
    for part, source in makers[name].sources.items():
        folders[part], download = work / part, work / f"{part}-download"
        for folder in (folders[part], download):
            folder.mkdir()
        get(source, folders[part], download)
    makers[name].make(folders, out)
