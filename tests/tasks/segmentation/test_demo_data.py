"""Pictures with garments: made the same each time, with masks that are exact, from sources that no two splits share."""

import gzip
import hashlib
import shutil
import struct
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from stillframe.config import FetchConfig
from stillframe.ingest import demo_sources
from stillframe.stages import fetch
from stillframe.tasks.segmentation import demo_data as garments
from tiny import picture

CONF = Path(__file__).parents[3] / "conf/data"
SHADE = {"train": 200, "val": 150, "test": 100}  # of all garments of a split: tells where a pixel comes from


def sources(folder):
    """idx files of garments of one shade a split, and photographs that are darker than any of them."""
    for name in ("garments", "photographs"):
        (folder / name).mkdir(parents=True)
    for prefix, count in (("train", 120), ("t10k", 30)):
        images = np.zeros((count, 28, 28), dtype=np.uint8)
        labels = (np.arange(count) // 6 % 10).astype(np.uint8)
        shade = [SHADE["test"] if prefix == "t10k" else SHADE["val" if n % 6 == 0 else "train"] for n in range(count)]
        images[:, 4:24, 6:22] = np.array(shade)[:, None, None]
        images[:, 12:14, 12:14] = 0  # a hole, which belongs to the garment
        images[:, 0, 0] = 255  # a speck, which does not
        for kind, values, axes in (("images-idx3", images, 3), ("labels-idx1", labels, 1)):
            head = struct.pack(f">HBB{axes}I", 0, 8, axes, *values.shape)
            (folder / f"garments/{prefix}-{kind}-ubyte.gz").write_bytes(gzip.compress(head + values.tobytes()))
    for number in range(9):
        Image.fromarray(picture(number, 40, 30)[..., 0] // 8).save(folder / f"photographs/{number}.png")
    return {name: folder / name for name in ("garments", "photographs")}


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr(garments, "N_IMAGES", {"train": 4, "val": 3, "test": 3})
    monkeypatch.setattr(garments, "LIGHT", (1.0, 1.0))
    monkeypatch.setattr(garments, "KINDS", {"top": (0, 2, 4, 6, 1), "shoe": (5, 7, 9, 3, 8)})


def digests(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_masks_are_exact_and_splits_share_nothing(tmp_path, few):
    given, out = sources(tmp_path / "given"), tmp_path / "out"
    out.mkdir()
    garments.make(given, out)
    seen = {"values": set(), "covered": 0}
    for split, count in garments.N_IMAGES.items():
        names = sorted(path.name for path in (out / split / "images").iterdir())
        assert len(names) == count and names == sorted(path.name for path in (out / split / "masks").iterdir())
        for name in names:
            image, mask = (Image.open(out / split / kind / name) for kind in ("images", "masks"))
            assert (image.mode, mask.mode, image.size) == ("L", "P", (garments.SIDE, garments.SIDE))
            values, pixels = np.asarray(mask), np.asarray(image)
            assert pixels[values == 0].max() < 40, "what is not in the mask is photograph"
            inside = pixels[values > 0]
            assert inside.max() == SHADE[split] and (inside > 60).mean() > 0.85, "but for holes and mixed edges"
            seen["values"] |= set(np.unique(values))
            seen["covered"] += (values > 0).mean()
    assert seen["values"] == {0, 1, 2} and 0.02 < seen["covered"] / 10 < 0.6
    assert (out / "classes.csv").read_text().splitlines()[:2] == ["name,value,r,g,b", "background,0,0,0,0"]


def test_twice_the_same_bytes_and_an_unknown_maker(tmp_path, few):
    given = sources(tmp_path / "given")
    where = {source.name: given[part] for part, source in garments.DEMO_DATA["garments"].sources.items()}

    def get(source, out, work):
        shutil.copytree(where[source.name], out, dirs_exist_ok=True)

    for name in ("one", "two"):
        out, work = tmp_path / name / "out", tmp_path / name / "work"
        out.mkdir(parents=True)
        work.mkdir()
        demo_sources.make_demo_data("garments", garments.DEMO_DATA, out, work, get)
    assert digests(tmp_path / "one/out") == digests(tmp_path / "two/out")
    asked = FetchConfig(kind="made", name="garmets", sha256=None, folder=None)
    with pytest.raises(ValueError, match=r"data\.fetch\.name = 'garmets'.* did you mean 'garments'"):
        fetch.run(asked, None, raw=tmp_path / "raw")
    assert not (tmp_path / "raw").exists()


def test_too_little_to_make_from_is_named(tmp_path, few):
    given = sources(tmp_path)
    for path in (tmp_path / "photographs").glob("[1-9].png"):
        path.unlink()
    with pytest.raises(ValueError, match="photographs holds 1 photographs: one a split is needed"):
        garments.make(given, tmp_path)


@pytest.mark.parametrize(
    ("source", "name"), [(demo_sources.FASHION_MNIST, "fashion_mnist"), (demo_sources.ELPV, "elpv")]
)
def test_the_sources_are_those_of_their_own_data_sets(source, name):
    assert asdict(source) == yaml.safe_load((CONF / f"{name}.yaml").read_text())["fetch"]
