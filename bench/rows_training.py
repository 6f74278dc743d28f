"""Rows 2, 3, 5: the training loop against a plain one, and what it waits for."""

from __future__ import annotations

import os
import statistics
from typing import Any

from bench.made import plan, prepared
from bench.measuring import Result, Setting, ratio, spread

REAL = ("experiment=elpv_demo", "augment=none", "model.weights=null", "model.freeze=[]", "model.drop_rate=0.0")
NETS = {"tf_efficientnet_lite0": "depthwise", "resnet18": "dense"}


def _epochs(setting: Setting) -> str:
    return f"trainer.max_epochs={setting.pick(4, 2)}"


def real_net(setting: Setting) -> list[Result]:
    """Row 2: a whole epoch of a real net against a tight loop."""
    from bench.turns import plain_epoch, take_turns

    images = setting.pick(768, 96)
    os.chdir(setting.work)
    prepared(setting.work / "data/prepared", train=images, val=64, side=128, channels=3, classes=4)
    out = []
    for name, kind in NETS.items():
        size = setting.pick(32, 16)
        changes = (f"model.name={name}", f"trainer.batch_size={size}", _epochs(setting))
        seen = take_turns(plan(setting.work, setting.threads, *REAL, *changes), plain_epoch)
        share = ratio(seen.theirs, seen.ours)
        step = 1e3 * statistics.median(seen.their_steps) / seen.batches
        note = (
            f"{seen.batches} steps of {size} images of 128 px RGB, {step:.0f} ms each in the plain loop (fp32, "
            f"channels_last, AdamW, one-cycle, no augmentation). Ours: the whole epoch with validation, metrics, a "
            f"checkpoint of everything with fsync, history and MLflow on sqlite, {spread(seen.ours)}; plain: the same "
            f"steps and validation, nothing kept, {spread(seen.theirs)}. An epoch this short pays most for its end: "
            f"steps alone {ratio(seen.their_steps, seen.steps):.3f}."
        )
        what = f"training epoch of `{name}` ({kind}), images/s, against a tight PyTorch loop"
        out.append(Result(2, what, ">= 0.95 x", f"{share:.3f} x", share >= 0.95, note))
    return out


def waiting(setting: Setting) -> list[Result]:
    """Row 3: the share of an epoch's steps that waits for batches, in the demo's own configuration."""
    from bench.turns import waiting_for_data

    os.chdir(setting.work)
    images = setting.pick(768, 96)
    out = []
    for channels, name in ((1, "gray"), (3, "RGB")):
        folder = setting.work / name
        prepared(folder / "data/prepared", train=images, val=64, side=128, channels=channels, classes=2)
        demo = plan(folder, setting.threads, "experiment=elpv_demo", "augment=light", _epochs(setting))
        seen = waiting_for_data(demo, images)
        note = (
            f"the demo's net (`tf_efficientnet_lite0`, stem and three stages frozen), batch 32, `augment=light` per "
            f"item in the main process, 128 px {name}: {seen.sample_us:.0f} us an image waited for, of "
            f"{seen.step_us:.0f} us that a step takes; validation left out."
        )
        what = f"share of an epoch spent waiting for data, CPU, 128 px {name}, light augmentation online"
        out.append(Result(3, what, "<= 5 %", seen.shown, seen.share <= 0.05, note))
    return out


def _sized_for_two_ms(setting: Setting, options: dict[str, Any]) -> int:
    """The batch size whose plain step takes nearest to 2 ms here."""
    from bench.turns import plain_epoch

    from stillframe.training.loop import Training

    took = {}
    for size in (4, 8, 16, 32, 64, 128):
        training = Training(*plan(options["folder"], 1, *options["changes"], f"trainer.batch_size={size}"))
        epoch = plain_epoch(training)
        epoch()
        took[size] = (epoch()[1] or 0.0) / -(-len(training.data.train) // size)
    return min(took, key=lambda size: abs(took[size] - 0.002))


def small_steps(setting: Setting) -> list[Result]:
    """Row 5: steps of about 2 ms, where everything around the net shows."""
    from bench.turns import plain_epoch, take_turns

    os.chdir(setting.work)
    folder = setting.work / "few"
    prepared(folder / "data/prepared", train=2048, val=64, side=16, channels=1, classes=10)
    changes = ("experiment=digits_smoke", "model.drop_rate=0.0", f"trainer.max_epochs={setting.pick(6, 3)}")
    size = _sized_for_two_ms(setting, {"folder": folder, "changes": changes})
    folder, steps = setting.work / "many", setting.pick(1000, 200)
    prepared(folder / "data/prepared", train=steps * size, val=256, side=16, channels=1, classes=10)
    seen = take_turns(plan(folder, 1, *changes, f"trainer.batch_size={size}"), plain_epoch)
    more = ratio(seen.steps, seen.their_steps)
    theirs, ours = (1e3 * statistics.median(part) / seen.batches for part in (seen.their_steps, seen.steps))
    note = (
        f"`plain_cnn` at 16 px, batch {size}, {seen.batches} steps an epoch, one thread, with the bar on a terminal: "
        f"{theirs:.2f} ms a step in the plain loop, {ours:.2f} in ours, {1e3 * (ours - theirs):.0f} us more. With the "
        f"end of the epoch (validation in both; in ours also checkpoint, history and MLflow on sqlite, sent) "
        f"{ratio(seen.ours, seen.theirs):.2f} x."
    )
    what = "Trainer step with our default logging and metrics against a plain loop, at about 2 ms a step"
    return [Result(5, what, "<= 1.25 x", f"{more:.2f} x", more <= 1.25, note)]
