"""Rows 4 and 8: the data path of training, and preprocess."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from bench.made import class_folders, sections
from bench.measuring import ROOT, Result, Setting, call, interleaved, quiet_environment, ratio, spread

from stillframe.config import DataConfig

BATCH = 64


def _cpu(work: Callable[[], int]) -> float:
    """CPU-seconds an image."""
    started = time.process_time()
    images = work()
    return (time.process_time() - started) / images


def template_way(folder: Path, online: list[dict[str, Any]], card: Any) -> Callable[[], int]:
    """What the usual template does: ImageFolder, PIL to RGB, albumentations a sample, float32 tensors, collate."""
    import albumentations as A
    from albumentations.pytorch import ToTensorV2
    from torch.utils.data import DataLoader
    from torchvision.datasets import ImageFolder

    from stillframe.augmentation.policy import build

    after = [A.Normalize(mean=(0.5,) * 3, std=(0.25,) * 3), ToTensorV2()]
    policy = A.Compose([A.Resize(card.height, card.width), *build(online, "augment.online"), *after])
    data = ImageFolder(str(folder), transform=lambda image: policy(image=np.asarray(image))["image"])
    loader = DataLoader(data, batch_size=BATCH, shuffle=True, num_workers=0)

    def epoch() -> int:
        return sum(len(images) for images, _ in loader)

    return epoch


def our_way(prepared: Path, augment: Any, card: Any) -> Callable[[], int]:
    """The loader of the stage `train`, the online policy where it is applied, and the net's own normalisation."""
    from stillframe.augmentation.online import make_online
    from stillframe.models.build import create
    from stillframe.store.loader import EpochBatchSampler, SplitDataset, make_loader

    size = {"image_size": card.height, "channels": card.channels}
    online = make_online(augment, **size, device_type="cpu", seed=0)
    rows = SplitDataset([prepared / "train"], online)
    model = replace(sections("experiment=digits_smoke")["model"], name="plain_cnn")
    net = create(model, outputs=len(card.classes), **size, mean=card.mean, std=card.std)
    loader = make_loader(rows, EpochBatchSampler(len(rows), BATCH, seed=0), 0)

    def epoch() -> int:
        count = 0
        for batch in loader:
            image = batch.image
            if online is not None and online.where == "batch":
                image = online.batch(image, batch.epoch, batch.index_B)
            count += len(net.normalise(image))
        return count

    return epoch


def _one_size(setting: Setting, name: str, folder: Path, data: DataConfig, augment: Any, target: float) -> Result:
    from stillframe.ingest.prepare import prepare
    from stillframe.tasks.classification.target import TARGET
    from stillframe.types import DatasetCard

    out = setting.work / f"prepared-{name}"
    started = time.perf_counter()
    if not out.exists():
        prepare(folder, data, TARGET, seed=0, out=out, work=setting.work / "spool")
    once = time.perf_counter() - started
    card = DatasetCard.read(out / "card.json")
    theirs, ours = template_way(folder, augment.online, card), our_way(out, augment, card)
    theirs(), ours()

    def several() -> int:
        return sum(ours() for _ in range(10))

    mine, other = interleaved(lambda: _cpu(several), lambda: _cpu(theirs), setting.pick(5, 2))
    more = ratio(other, mine)
    where = "per item" if card.height > 64 else "on the batch"
    files = f"{sum(card.counts['train'].values()):,} train images of {sum(map(sum, _sizes(card))):,}"
    note = (
        f"one thread, no loader processes, {files} ({name}); template: ImageFolder, PIL to RGB, Resize, `augment="
        f"{augment.name}`, Normalize and ToTensorV2 a sample, collate, {spread(other, 1e6, 'us')} an image; ours: Rows "
        f"through Split from the memory-mapped Arrow file (raw uint8, {card.channels} channel(s)), the same policy "
        f"{where}, the net's normalisation, {spread(mine, 1e6, 'us')} an image. Decoding and resizing are not in ours: "
        f"preprocess does them once{f', here in {once:.1f} s with judging' if once > 0.1 else ''}."
    )
    what = f"training data path against the template way, images per CPU-second, {card.height} px, `{augment.name}`"
    return Result(4, what, f">= {target:.0f} x", f"{more:.1f} x", more >= target, note)


def _sizes(card: Any) -> list[list[int]]:
    return [list(counts.values()) for counts in card.counts.values()]


def data_path(setting: Setting) -> list[Result]:
    """Row 4: photographs at 224 px, and 28 px with the policy made for that size; each with a second policy."""
    import cv2
    import torch

    from stillframe.training.launch import keep_memory

    keep_memory()  # as the train stage does; the template's buffers are kept by it, too
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    count = setting.pick(800, 160)
    photographs = setting.images or class_folders(setting.work / "photographs", count, 300, 3)
    source = "real images given by --images" if setting.images else "made 300 px RGB JPEG"
    small = class_folders(setting.work / "small", 2 * count, 28, 1)
    out = []
    for large, little in (("light", "small"), ("upright", "light")):
        made = sections("data=folder", f"augment={large}")
        data = replace(made["data"], near_duplicates="off", val_fraction=0.02, test_fraction=0.02, workers=1)
        photo, tiny = replace(data, image_size=224), replace(data, image_size=28)
        out.append(_one_size(setting, source, photographs, photo, made["augment"], 10))
        made = sections("data=folder", f"augment={little}")
        out.append(_one_size(setting, "made 28 px gray PNG", small, tiny, made["augment"], 30))
    return out


PREPROCESS = """
import json, sys, threading, time
from pathlib import Path
import psutil
from bench.made import sections
from dataclasses import replace
from stillframe.ingest.prepare import prepare
from stillframe.tasks.classification.target import TARGET

def owned(pid):
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    sizes = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines}
    return sizes["Pss"], sizes["Anonymous"]

def watch():
    me = psutil.Process()
    while not done.is_set():
        try:
            each = [owned(process.pid) for process in [me, *me.children(recursive=True)]]
            for name, value in zip(peaks, map(sum, zip(*each))):
                peaks[name] = max(peaks[name], value)
        except (psutil.Error, OSError):
            pass  # a worker ended between the list and the look
        time.sleep(0.1)

if __name__ == "__main__":
    done, peaks = threading.Event(), {"all": 0, "anonymous": 0}
    threading.Thread(target=watch, daemon=True).start()
    data = replace(sections("data=folder")["data"], workers=int(sys.argv[3]), image_size=128)
    started = time.perf_counter()
    prepare(Path(sys.argv[1]), data, TARGET, seed=0, out=Path(sys.argv[2]), work=Path(sys.argv[2] + "-spool"))
    took = time.perf_counter() - started
    done.set()
    print(json.dumps({"seconds": took, **peaks}))
"""


def preprocess(setting: Setting) -> list[Result]:
    """Row 8: images/s, and memory at N and at 4 N images."""
    import json

    count = setting.pick(800, 300)
    script = setting.work / "preprocess_once.py"
    script.write_text(PREPROCESS, encoding="utf-8")
    env = quiet_environment(1, ROOT, ROOT / "src")
    seen = {}
    for times in (1, 4):
        folder = class_folders(setting.work / f"files{times}", times * count, 300, 3)
        out = setting.work / f"out{times}"
        answer = call(sys.executable, script, folder, out, setting.threads, cwd=setting.work, env=env)
        seen[times] = json.loads(answer.splitlines()[-1])
    once, four = seen[1], seen[4]
    more = four["anonymous"] / once["anonymous"]
    mib = {name: [seen[times][name] / 2**20 for times in (1, 4)] for name in ("anonymous", "all")}
    rate = 3 * count / max(four["seconds"] - once["seconds"], 1e-9)
    note = (
        f"made 300 px RGB JPEG to 128 px, {setting.threads} worker process(es): {count:,} images in "
        f"{once['seconds']:.1f} s, {4 * count:,} in {four['seconds']:.1f} s (with the start of the workers; the rate "
        f"is that of the difference). Peak over all processes, anonymous memory {mib['anonymous'][0]:.0f} and "
        f"{mib['anonymous'][1]:.0f} MiB; with the mapped files, which the system may drop at any time (PSS), "
        f"{mib['all'][0]:.0f} and {mib['all'][1]:.0f} MiB: {four['all'] / once['all']:.2f} x."
    )
    what = f"preprocess: peak (anonymous) memory at {4 * count:,} images against {count:,}"
    speed = Result(8, "preprocess: images/s (read, decode, judge, resize, split, write)", "-", f"{rate:.0f}", None)
    return [speed, Result(8, what, "<= 1.1 x", f"{more:.2f} x", more <= 1.1, note)]
