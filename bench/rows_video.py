"""Rows 17 and 18: what preprocess adds to the bare decoder of videos, and what a video epoch waits for."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from bench.made import photograph, plan, sections
from bench.measuring import Result, Setting, interleaved, ratio, spread

HEIGHT, WIDTH, FRAMES, TAKEN = 240, 320, 64, 16  # px, px, frames of a file, frames of a clip
CLASSES = ["left", "right"]


def films(folder: Path, count: int) -> list[Path]:
    """Files of four seconds in which a photograph moves past."""
    from stillframe.tasks.video_classification import demo_data

    folder.mkdir(exist_ok=True)
    made = []
    for number in range(count):
        wide = photograph(number, 640, 3)
        frames = np.stack([wide[at : at + HEIGHT, 2 * at : 2 * at + WIDTH] for at in range(FRAMES)])
        made.append(folder / f"{number:03d}.mp4")
        demo_data.write(made[-1], frames)
    return made


def decoding(setting: Setting) -> list[Result]:
    """Row 17: clips/s that preprocess reads, judges and prepares, against a loop that only decodes."""
    import av
    import cv2
    from av.video.reformatter import VideoReformatter

    from stillframe.config import ClipConfig
    from stillframe.ingest.ingest_config import IngestConfig
    from stillframe.ingest.listing import SourceRow
    from stillframe.ingest.video import clip_rows
    from stillframe.tasks.video_classification.target import TARGET

    cv2.setNumThreads(1)
    paths = films(setting.work / "films", setting.pick(40, 8))
    clip = ClipConfig(frames=TAKEN, stored=None, fps=None, sampling="uniform", views=1, reversible=False)
    config = IngestConfig.of(replace(sections("data=folder")["data"], clip=clip, image_size=112), TARGET)
    colours = VideoReformatter()

    def bare() -> float:
        started = time.process_time()
        for path in paths:
            with av.open(str(path)) as file:
                file.streams.video[0].codec_context.thread_count = 1
                for number, frame in enumerate(file.decode(video=0)):
                    if number % (FRAMES // TAKEN) == 0:
                        colours.reformat(frame, format="rgb24", threads=1).to_ndarray()
        return (time.process_time() - started) / len(paths)

    def ours() -> float:
        started = time.process_time()
        for path in paths:
            record = {}
            clip_rows.examine_clip(SourceRow(path.name, "a"), path, clip, config, record)
        return (time.process_time() - started) / len(paths)

    ours(), bare()
    mine, other = interleaved(ours, bare, setting.pick(7, 2))
    share = ratio(other, mine)
    note = (
        f"made H.264 of {WIDTH} x {HEIGHT} px, {FRAMES} frames, {TAKEN} of them taken; one thread. Bare: PyAV decodes "
        f"each frame and turns {TAKEN} into RGB, {spread(other, 1e3, 'ms')} a clip. Ours: the survey of preprocess "
        f"(sha256, the file's end, resizing to 112 px, fingerprints, JPEG), {spread(mine, 1e3, 'ms')}."
    )
    what = "preprocess of videos, clips per CPU-second, against the bare decoder"
    return [Result(17, what, ">= 0.5 x", f"{share:.2f} x", share >= 0.5, note)]


def clips(folder: Path, *, train: int, val: int, side: int, channels: int) -> Path:
    """data/prepared with clips, as the stage leaves it (raw uint8), made without files; 16 clips are repeated."""
    from stillframe.store.columns import TargetColumn
    from stillframe.store.frame_sampling import facts
    from stillframe.store.split import SplitWriter
    from stillframe.types import SPLITS, DatasetCard

    data = sections("experiment=video_motion")["data"]
    frames = data.clip.frames
    stills = [photograph(number, side, channels) for number in range(16)]
    made = [np.stack([np.roll(still, at, axis=1) for at in range(frames)]).tobytes() for still in stills]
    meta = {"height": side, "width": side, "channels": channels, "encoding": "raw", "frames": frames}
    targets = [TargetColumn("label", "int")]
    for split, size in zip(SPLITS, (train, val, val), strict=True):
        with SplitWriter(folder / split, **meta, targets=targets) as writer:
            for number in range(size):
                name = f"{split}/{number}"
                row = {"id": name, "source_id": name, "group": name, "label": number % 2, "weight": 1.0}
                source = {"source_width": side, "source_height": side, "source_mode": "h264", "slices": "{}"}
                writer.write([{**row, **source, "image": made[number % 16]}])
    counts = {split: dict.fromkeys(CLASSES, size // 2) for split, size in zip(SPLITS, (train, val, val), strict=True)}
    statistics = ([0.5] * channels, [0.2] * channels)
    card = DatasetCard("made", CLASSES, counts, channels, side, side, *statistics, [], "0" * 64)
    replace(card, frames=frames, clip=facts(data.clip)).write(folder / "card.json")
    return folder


def waiting(setting: Setting) -> list[Result]:
    """Row 18: the share of an epoch's steps that waits for batches of clips, as conf/experiment has it, augmented."""
    from bench.turns import waiting_for_data

    os.chdir(setting.work)
    videos = setting.pick(640, 128)
    clips(setting.work / "data/prepared", train=videos, val=32, side=32, channels=1)
    changes = (f"trainer.max_epochs={setting.pick(4, 2)}", "augment=upright")
    experiment = plan(setting.work, setting.threads, "experiment=video_motion", *changes)
    seen = waiting_for_data(experiment, videos)
    note = (
        f"`experiment=video_motion` (16 frames of 32 px gray, `cnn_gru`, batch 16) with `augment=upright`, which "
        f"works on the batch at that size: {seen.sample_us:.0f} us a clip waited for, of "
        f"{seen.step_us:.0f} us that a step takes; validation left out."
    )
    what = "share of a video epoch spent waiting for data, CPU, 16 frames of 32 px gray, `upright` online"
    return [Result(18, what, "<= 5 %", seen.shown, seen.share <= 0.05, note)]
