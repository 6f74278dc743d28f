"""Real video files whose label is a motion: garments of Fashion-MNIST going round in circles over dimmed photographs.

One frame says nothing of the label, and neither do all of them without their order. Each half of a clip is a whole
number of turns from a random angle, so that in every class the garment is anywhere on its circle equally often:

    clockwise         one turn, one turn
    counterclockwise  the same the other way round
    turns_back        one turn, then one the other way
    speeds_up         one turn, then two; either way round
    slows_down        two turns, then one; either way round

Fashion-MNIST: Xiao, Rasul and Vollgraf 2017. The photographs are the two that scikit-learn brings along. The splits
share neither garments nor parts of the photographs.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stillframe.ingest import idx
from stillframe.ingest.decode import Pixels, resize
from stillframe.ingest.demo_sources import FASHION_MNIST, DemoData
from stillframe.paths import replacing
from stillframe.progress import bar

TURNS = {  # of each half of a clip; clockwise is positive
    "clockwise": (1, 1),
    "counterclockwise": (-1, -1),
    "turns_back": (1, -1),
    "speeds_up": (1, 2),
    "slows_down": (2, 1),
}
EITHER_WAY = ("turns_back", "speeds_up", "slows_down")
CLIPS = {"train": 400, "val": 60, "test": 120}  # of each class
WHERE = {"train": (0.0, 0.6), "val": (0.6, 0.8), "test": (0.8, 1.0)}  # part of the photographs' width
SIDE, GARMENT, FRAMES, FPS = 64, 28, 32, 16  # px, px, frames, frames a second
LIGHT = 0.4  # of the photographs, so that the garment is what stands out
WOBBLE = 0.02  # of a turn, either way, drawn for each frame


def make_from_sources(folders: dict[str, Path], out: Path) -> None:
    """Make the data set from the folder "garments" of the sources, which holds the idx files."""
    make(folders["garments"], out)


def make(folder: Path, out: Path, *, clips: dict[str, int] | None = None, seed: int = 0) -> None:
    """Write `out`/<split>/<class>/<number>.mp4.

    Args:
        folder: the idx files of Fashion-MNIST.
        out: an empty folder.
        clips: of each class, by split; None: `CLIPS`.
        seed: of every draw.

    Raises:
        ValueError: the idx files are not there, or not whole.
    """
    files = {path.name.removesuffix(".gz"): path for path in idx.image_files(folder)}
    if len(files) < 2:
        raise ValueError(f"{folder} holds no idx files of train and test images")
    photographs, counts = _photographs(), clips or CLIPS
    with bar("making clips", sum(counts.values()) * len(TURNS)) as advance:
        for split, count in counts.items():
            path = next(files[name] for name in files if name.startswith("train") == (split != "test"))
            rows = range(idx.header(path).sizes[0])
            garments = rows[: len(rows) * 9 // 10] if split == "train" else rows[len(rows) * 9 // 10 :]
            unpacked = idx.unpacked(path, out.parent)
            for label, name in enumerate(TURNS):
                (out / split / name).mkdir(parents=True)
                for number in range(count):
                    draw = np.random.default_rng([seed, len(split), label, number])
                    garment = idx.pixels(unpacked, garments[int(draw.integers(len(garments)))])
                    ground = _ground(photographs, WHERE[split], draw)
                    write(out / split / name / f"{number:04d}.mp4", clip(name, garment, ground, draw))
                    advance(1)


def _photographs() -> list[Pixels]:
    from sklearn.datasets import load_sample_images

    return [np.asarray(image, dtype=np.uint8) for image in load_sample_images().images]


def _ground(photographs: Sequence[Pixels], where: tuple[float, float], draw: np.random.Generator) -> Pixels:
    """A square of a photograph, from its part `where`: uint8 (SIDE, SIDE, 3)."""
    photograph = photographs[int(draw.integers(len(photographs)))]
    height, width = photograph.shape[:2]
    first, last = (int(share * width) for share in where)
    size = int(draw.integers(SIDE, min(last - first, 2 * SIDE) + 1))
    top, left = int(draw.integers(0, height - size + 1)), int(draw.integers(first, last - size + 1))
    square = resize(np.ascontiguousarray(photograph[top : top + size, left : left + size]), SIDE, "squash")
    return np.round(square * LIGHT).astype(np.uint8)


def angles(name: str, draw: np.random.Generator) -> NDArray[np.float64]:
    """The angle of the garment in each frame, in turns, clockwise on the screen: (FRAMES,)."""
    way = 1 if name not in EITHER_WAY else int(draw.choice([-1, 1]))
    step_T = np.repeat(np.array(TURNS[name], dtype=np.float64) * way, FRAMES // 2) / (FRAMES // 2)
    return draw.random() + np.cumsum(step_T) + draw.uniform(-WOBBLE, WOBBLE, FRAMES)


def clip(name: str, garment: Pixels, ground: Pixels, draw: np.random.Generator) -> Pixels:
    """The frames of one clip: uint8 (FRAMES, SIDE, SIDE, 3).

    Args:
        name: of the class, in `TURNS`.
        garment: uint8 (28, 28, 1), black around.
        ground: uint8 (SIDE, SIDE, 3).
        draw: decides the circle, the colour and where the garment begins.
    """
    room = SIDE - GARMENT
    radius = draw.uniform(0.3, 0.5) * room
    centre = draw.uniform(radius, room - radius, 2)
    turn_T = 2 * np.pi * angles(name, draw)
    left_T = np.round(centre[0] + radius * np.cos(turn_T)).astype(int).clip(0, room)
    top_T = np.round(centre[1] + radius * np.sin(turn_T)).astype(int).clip(0, room)
    shade = garment.astype(np.float64) / 255.0
    cover = np.minimum(1.0, shade * 4.0)
    coloured = shade * draw.uniform(128.0, 255.0, 3)
    frames = np.repeat(ground[None], FRAMES, axis=0)
    for frame, top, left in zip(frames, top_T, left_T, strict=True):
        under = frame[top : top + GARMENT, left : left + GARMENT]
        under[:] = np.round(under * (1.0 - cover) + coloured * cover).astype(np.uint8)
    return frames


def write(path: Path, frames: Pixels) -> None:
    """Write frames, uint8 (T, H, W, 3), as H.264 in MP4, whole or not at all."""
    import av
    from av.video.reformatter import VideoReformatter

    colours = VideoReformatter()
    with replacing(path) as temporary, av.open(str(temporary), "w", format="mp4") as file:
        # mbtree of x264 reads memory that it never wrote where images are this small: other bytes at each run
        options = {"crf": "23", "preset": "veryfast", "x264-params": "mbtree=0:bframes=0"}
        stream = file.add_stream("libx264", rate=FPS, options=options)
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
        stream.codec_context.thread_count = 1
        for number, image in enumerate(frames):
            frame = colours.reformat(av.VideoFrame.from_ndarray(image, format="rgb24"), format="yuv420p", threads=1)
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())


DEMO_DATA = {"motion": DemoData({"garments": FASHION_MNIST}, make_from_sources)}
