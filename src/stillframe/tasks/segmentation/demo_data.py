"""Photographs with garments on them, and exact masks: real pictures whose every pixel is known.

Garments of Fashion-MNIST, several an image, turned, mirrored, scaled and laid over one another on photographs. What
lies on top is what the mask says. Train, validation and test share neither a garment nor a photograph.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stillframe.drawing.class_map import encode_class_map, palette
from stillframe.ingest import idx
from stillframe.ingest.decode import decode, resize
from stillframe.ingest.demo_sources import ELPV, FASHION_MNIST, DemoData
from stillframe.progress import bar

SEED = 0
SIDE = 224  # px, of an image
N_IMAGES = {"train": 420, "val": 90, "test": 90}
GARMENTS = (3, 6)  # an image, fewest and most
SCALE = (1.8, 3.4)  # a garment of 28 px becomes 50 to 95 px
TURN = 30.0  # degrees, to either side, at most
FAINT, SPECK = 24, 8  # of a garment: what is as dark belongs to the ground; parts of fewer px are dropped
LIGHT = (0.55, 1.0)  # times a garment's own brightness
KINDS = {  # class -> labels of Fashion-MNIST
    "top": (0, 2, 4, 6),
    "trouser": (1,),
    "dress": (3,),
    "bag": (8,),
    "shoe": (5, 7, 9),
}
BACKGROUND = "background"

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class GarmentImages:
    """What the pictures of one split are made from."""

    photographs: list[Path]
    garments: dict[str, list[Pixels]]  # class -> images (28, 28), background 0


def make(folders: dict[str, Path], out: Path) -> None:
    """Write `<split>/images/*.png`, `<split>/masks/*.png` (palette, value = class) and classes.csv.

    Args:
        folders: "garments", idx files of Fashion-MNIST; "photographs", a folder with image files somewhere below.
        out: an empty folder.

    Raises:
        ValueError: too few photographs or garments, or a file that cannot be read.
    """
    stocks = _stocks(folders)
    names = [BACKGROUND, *KINDS]
    with (out / "classes.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["name", "value", "r", "g", "b"])
        table.writerows([name, value, *palette()[value].tolist()] for value, name in enumerate(names))
    with bar("making pictures", sum(N_IMAGES.values())) as advance:
        for part, (split, count) in enumerate(N_IMAGES.items()):
            for kind in ("images", "masks"):
                (out / split / kind).mkdir(parents=True)
            for number in range(count):
                image, mask = make_image(stocks[split], np.random.default_rng([SEED, part, number]))
                _write(image, mask, names, out / split, f"{number:04d}.png")
                advance(1)


def _write(image: Pixels, mask: Pixels, names: list[str], folder: Path, name: str) -> None:
    Image.fromarray(image).save(folder / "images" / name)
    (folder / "masks" / name).write_bytes(encode_class_map(mask, names))


def _stocks(folders: dict[str, Path]) -> dict[str, GarmentImages]:
    """Photographs dealt to the splits by their share of pictures; test garments from the published test images."""
    paths = sorted(path for path in folders["photographs"].rglob("*") if path.suffix.lower() in (".png", ".jpg"))
    order = np.random.default_rng([SEED, 99]).permutation(len(paths))
    if len(paths) < len(N_IMAGES):
        raise ValueError(f"{folders['photographs']} holds {len(paths)} photographs: one a split is needed at least")
    shares = np.cumsum(list(N_IMAGES.values())) / sum(N_IMAGES.values())
    dealt = np.split(order, np.round(shares * len(paths)).astype(int)[:-1])
    of = dict(zip(N_IMAGES, dealt, strict=True))
    garments = _garments(folders["garments"])
    return {split: GarmentImages([paths[i] for i in of[split]], garments[split]) for split in N_IMAGES}


def _garments(folder: Path) -> dict[str, dict[str, list[Pixels]]]:
    """Split -> class -> garments; the validation split has every sixth of the published train images."""
    listing = idx.read_idx(folder)
    class_of = {str(label): name for name, labels in KINDS.items() for label in labels}
    files = {path.name.removesuffix(".gz"): idx.unpacked(path, folder) for path in idx.image_files(folder)}
    arrays = {name: idx.images(path) for name, path in files.items()}
    garments: dict[str, dict[str, list[Pixels]]] = {split: {name: [] for name in KINDS} for split in N_IMAGES}
    for row in listing.rows:
        name, number = row.id.split("#")
        split = "test" if row.split == "test" else "val" if int(number) % 6 == 0 else "train"
        garments[split][class_of[row.target]].append(arrays[name][int(number)])
    for split, kinds in garments.items():
        for name, images in kinds.items():
            if not images:
                raise ValueError(f"{folder} has no {name} for the {split} split")
    return garments


def make_image(stock: GarmentImages, random: np.random.Generator) -> tuple[Pixels, Pixels]:
    """One image (SIDE, SIDE), gray, and its mask (SIDE, SIDE): 0, or 1 + the number of the class in `KINDS`."""
    photograph = stock.photographs[int(random.integers(len(stock.photographs)))]
    image = resize(decode(photograph.read_bytes()).image[:, :, :1], SIDE, "crop")[:, :, 0].copy()
    mask = np.zeros((SIDE, SIDE), dtype=np.uint8)
    for _ in range(int(random.integers(GARMENTS[0], GARMENTS[1] + 1))):
        kind = int(random.integers(len(KINDS)))
        garments = stock.garments[list(KINDS)[kind]]
        garment = garments[int(random.integers(len(garments)))]
        lay(image, mask, garment, kind + 1, random)
    return image, mask


def lay(image: Pixels, mask: Pixels, garment: Pixels, value: int, random: np.random.Generator) -> None:
    """Put a garment (28, 28) somewhere on an image and its value into the mask, in place."""
    scale, turn = random.uniform(*SCALE), random.uniform(-TURN, TURN)
    light, mirrored = random.uniform(*LIGHT), bool(random.integers(2))
    x, y = random.uniform(0.1 * SIDE, 0.9 * SIDE, 2)
    if mirrored:
        garment = np.ascontiguousarray(garment[:, ::-1])
    matrix = cv2.getRotationMatrix2D(((garment.shape[1] - 1) / 2, (garment.shape[0] - 1) / 2), turn, scale)
    matrix[:, 2] += (x - (garment.shape[1] - 1) / 2, y - (garment.shape[0] - 1) / 2)
    shape = np.where(silhouette(garment), np.float32(1), np.float32(0))
    laid = cv2.warpAffine(shape, matrix, (SIDE, SIDE), flags=cv2.INTER_LINEAR) > 0.5
    shades = cv2.warpAffine(garment, matrix, (SIDE, SIDE), flags=cv2.INTER_LINEAR).astype(np.float64) * light
    image[laid] = np.round(shades[laid]).astype(np.uint8)
    mask[laid] = value


def silhouette(garment: Pixels) -> NDArray[np.bool_]:
    """Where a garment of Fashion-MNIST is: what is brighter than the black around it, dark places inside included.

    Specks of a few pixels beside it are left over from how the images were made small.
    """
    from scipy.ndimage import binary_fill_holes, label

    filled = binary_fill_holes(garment > FAINT)
    parts, count = label(filled, structure=np.ones((3, 3)))
    sizes = np.bincount(parts.ravel(), minlength=count + 1)
    return np.asarray(filled & (sizes[parts] >= SPECK), dtype=bool)


DEMO_DATA = {"garments": DemoData({"garments": FASHION_MNIST, "photographs": ELPV}, make)}
