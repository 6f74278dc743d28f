"""Rows 9 and 13: the exported file against eager PyTorch, and `stillframe predict` against a bare loop over arrays."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench.made import class_folders, photograph
from bench.measuring import Result, Setting, interleaved, ratio, spread

from stillframe.export.onnx_graph import ExportedNetwork, net_graph, save, with_preprocessing
from stillframe.export.quantize import to_int8
from stillframe.inference.onnx_model import OnnxModel
from stillframe.model_metadata import ModelMetadata
from stillframe.models.build import Network, NetworkSpec, rebuild

SIDE, CLASSES, SEEN = 128, 4, 64  # px; classes; images on which decisions are compared and int8 is calibrated
NETS = ("tf_efficientnet_lite0", "resnet18")
TARGETS = {("fp32", 1): 2.0}  # DESIGN names this one; the others are shown


def _facts(name: str, resize: str = "squash") -> ModelMetadata:
    limits = {"size": SIDE, "channels": 3, "resize": resize, "min_px": 8, "max_megapixels": 100.0}
    choices = {"tta": "none", "temperature": 1.0, "threshold": None, "variant": "fp32"}
    origin = {"data": "made", "data_hash": "0" * 64, "run_id": None, "git_commit": None}
    names = [str(label) for label in range(CLASSES)]
    return ModelMetadata(task="classification", classes=names, net=name, **limits, **choices, **origin)


def _files(name: str, folder: Path) -> tuple[Network, dict[str, Path]]:
    """A net (weights as initialised: speed does not depend on them) and its two files."""
    torch.manual_seed(0)
    net = rebuild(NetworkSpec(name, CLASSES, 3, SIDE, [0.5] * 3, [0.25] * 3, 0.0, 0.0)).eval()
    with torch.no_grad():  # batch statistics of real pictures, so that activations have a real range
        net.train()(_pictures(SEEN))
        net.eval()
    facts, plain = _facts(name), net_graph(net, _facts(name))
    seen = _pictures(SEEN).numpy().astype(np.float32)
    made = {"fp32": plain, "int8": to_int8(plain, seen)}
    paths = {variant: folder / f"{name}-{variant}.onnx" for variant in made}
    for variant, model in made.items():
        save(with_preprocessing(model, replace(facts, variant=variant)), paths[variant])
    return net, paths


def _pictures(count: int) -> torch.Tensor:
    """uint8 (N, 3, S, S), channels last in memory, as the store gives them."""
    stacked = np.stack([photograph(number, SIDE, 3) for number in range(count)])
    return torch.from_numpy(stacked).permute(0, 3, 1, 2)


def _clock(work: Callable[[], Any], calls: int) -> Callable[[], float]:
    def timed() -> float:
        started = time.perf_counter()
        for _ in range(calls):
            work()
        return (time.perf_counter() - started) / calls

    return timed


def runtime(setting: Setting) -> list[Result]:
    """Row 9: ONNX Runtime, fp32 and int8, against eager PyTorch at batch 1 and 32, on the same uint8 pictures."""
    torch.set_num_threads(setting.threads)
    out = []
    for name in NETS:
        net, paths = _files(name, setting.work)
        net.backbone.to(memory_format=torch.channels_last)
        eager, pictures = ExportedNetwork(net, _facts(name)).eval(), _pictures(SEEN)
        arrays = np.ascontiguousarray(pictures.permute(0, 2, 3, 1).numpy())
        with torch.inference_mode():
            right = eager(pictures)[1].numpy()
            for variant, path in paths.items():
                file = OnnxModel(path, threads=setting.threads)
                same = int((file.run(arrays)["decision"] == right).sum())
                for size in (1, 32):
                    out.append(_compared(setting, (name, variant, size), file, eager, arrays, pictures, same))
    return out


def _compared(
    setting: Setting,
    what: tuple[str, str, int],
    file: OnnxModel,
    eager: ExportedNetwork,
    arrays: np.ndarray,
    pictures: torch.Tensor,
    same: int,
) -> Result:
    name, variant, size = what
    calls = setting.pick(60 if size == 1 else 4, 3)
    ours = _clock(lambda: file.run(arrays[:size]), calls)
    theirs = _clock(lambda: eager(pictures[:size]), calls)
    ours(), theirs()  # not counted
    mine, other = interleaved(ours, theirs, setting.pick(7, 2))
    times, target = ratio(other, mine), TARGETS.get((variant, size))
    note = (
        f"`{name}`, {SIDE} px RGB, batch {size}: eager (channels_last, inference mode) {spread(other, 1e3, 'ms')}, "
        f"ONNX Runtime {spread(mine, 1e3, 'ms')}, its resize included; {same} of {SEEN} decisions are the same."
    )
    met = None if target is None else times >= target and same == SEEN
    wanted = "-" if target is None else f">= {target:g} x, same decisions"
    title = f"ONNX Runtime {variant} against eager PyTorch, `{name}`, batch {size}"
    return Result(9, title, wanted, f"{times:.2f} x", met, note)


def predict_rate(setting: Setting) -> list[Result]:
    """Row 13: files to a table, against the same file asked about arrays that are decoded already."""
    from stillframe.inference.predict import predict
    from stillframe.ingest.read_image import read_image

    count = setting.pick(960, 96)
    folder = class_folders(setting.work / "photos", count, 300, 3)
    _, paths = _files(NETS[0], setting.work)
    file = OnnxModel(paths["fp32"], threads=setting.threads)
    read = [read_image(path, min_px=8, max_megapixels=100.0).image for path in sorted(folder.rglob("*.jpg"))]
    batches = [np.stack(read[first : first + 32]) for first in range(0, count, 32)]

    def bare() -> float:
        started = time.perf_counter()
        for batch in batches:
            file.run(batch)
        return (time.perf_counter() - started) / count

    def ours() -> float:
        out = str(setting.work / "answers.csv")
        done = predict([str(folder)], model=str(paths["fp32"]), out=out, threads=setting.threads, quiet=True)
        assert done.answered == count
        return done.seconds / count

    bare(), ours()  # not counted
    mine, other = interleaved(ours, bare, setting.pick(5, 2))
    share = ratio(other, mine)
    note = (
        f"{count} made JPEG of 300 px, `{NETS[0]}` at {SIDE} px in fp32, batches of 32: `predict` "
        f"{spread(mine, 1e3, 'ms')} an image with finding, reading, decoding and writing CSV (opening the model left "
        f"out); the bare loop {spread(other, 1e3, 'ms')} on arrays in memory."
    )
    what = "`stillframe predict` against a bare loop on decoded arrays, images/s"
    return [Result(13, what, ">= 0.8 x", f"{share:.2f} x", share >= 0.8, note)]
