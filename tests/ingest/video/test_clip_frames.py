import json

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from test_online import CONF, augment, shipped

from clips import film, numbered, numbers
from stillframe.augmentation import preview
from stillframe.augmentation.offline import make_copies
from stillframe.augmentation.online import OnlineAugmentation
from stillframe.config import ClipConfig, TemporalConfig, build
from stillframe.ingest.prepare import prepare
from stillframe.store import frame_sampling as clips
from stillframe.store.encoding import encode_clip, pack, unpack
from stillframe.store.frame_sampling import FrameSampler, FrameTimes, make_frame_sampler, seconds
from stillframe.store.loader import SplitDataset
from stillframe.store.split import Split, SplitWriter
from stillframe.tasks.classification.target import TARGET
from stillframe.types import SPLITS, DatasetCard
from tiny import DATA, LABEL

CLIP = {"frames": 4, "stored": None, "fps": None, "sampling": "uniform", "views": 1, "reversible": False}
POLICIES = sorted(path.stem for path in CONF.glob("*.yaml"))
STILL = TemporalConfig(jitter=False, reverse=0.0, speed=0.0)


def clip(**changes):
    return ClipConfig(**(CLIP | changes))


def data(**changes):
    changes["clip"] = CLIP | changes.get("clip", {})
    return build("data", DATA | {"workers": 1, "near_duplicates": "off"} | changes)


# -- when ----------------------------------------------------------------------------------------------------
def test_without_a_rate_frames_lie_in_the_middle_of_equal_parts():
    assert seconds(4, None, 1, 0.0, 8.0) == pytest.approx(np.array([[1, 3, 5, 7]]))
    assert seconds(2, None, 2, 4.0, 8.0) == pytest.approx(np.array([[4.5, 6.5], [5.5, 7.5]]))


def test_with_a_rate_views_are_windows_from_the_beginning_to_the_end():
    assert seconds(4, 2.0, 1, 0.0, 10.0) == pytest.approx(np.array([[4.25, 4.75, 5.25, 5.75]]))
    three = seconds(4, 2.0, 3, 0.0, 10.0)
    assert three[:, 0] == pytest.approx([0.25, 4.25, 8.25]) and three[2, -1] == pytest.approx(9.75)
    short = seconds(4, 2.0, 1, 1.0, 2.0)
    assert short[0, :2] == pytest.approx([1.25, 1.75]) and (short[0, 2:] < 2.0).all(), "the last frame is repeated"


def test_each_frame_is_read_once_whatever_split_it_will_be_in():
    plain = FrameTimes.of(clip(), 0.0, 4.0)
    assert len(plain.seconds_N) == 4 and plain.train_S.tolist() == [0, 1, 2, 3] == plain.views_VT[0].tolist()
    several = FrameTimes.of(clip(stored=8, views=3), 0.0, 4.0)
    assert (np.diff(several.seconds_N) > 0).all()
    assert several.seconds_N[several.train_S] == pytest.approx(seconds(8, None, 1, 0.0, 4.0)[0])
    assert several.seconds_N[several.views_VT] == pytest.approx(seconds(4, None, 3, 0.0, 4.0))


# -- which of the stored frames ------------------------------------------------------------------------------
def test_without_temporal_augmentation_the_frames_are_those_of_evaluation():
    index = np.arange(5)
    assert (FrameSampler(clip(stored=4), None, seed=0)(3, index) == np.arange(4)).all()
    assert (FrameSampler(clip(stored=12), None, seed=0)(3, index) == [1, 4, 7, 10]).all()
    assert (FrameSampler(clip(stored=10, fps=5.0), None, seed=0)(3, index) == [3, 4, 5, 6]).all()


def test_jitter_moves_the_whole_clip_or_each_frame_in_its_part():
    index = np.arange(400)
    uniform = FrameSampler(clip(stored=16), TemporalConfig(jitter=True, reverse=0.0, speed=0.0), seed=1)(0, index)
    assert (np.diff(uniform) == 4).all() and set(uniform[:, 0]) == {0, 1, 2, 3}
    parts = FrameSampler(
        clip(stored=16, sampling="segments"), TemporalConfig(jitter=True, reverse=0.0, speed=0.0), seed=1
    )(0, index)
    assert (parts // 4 == np.arange(4)).all() and len(set(np.diff(parts).ravel())) > 3
    window = FrameSampler(clip(stored=10, fps=5.0), TemporalConfig(jitter=True, reverse=0.0, speed=0.0), seed=1)(
        0, index
    )
    assert (np.diff(window) == 1).all() and set(window[:, 0]) == set(range(7))


def test_speed_changes_the_step_and_reversal_the_order():
    index = np.arange(400)
    fast = FrameSampler(clip(stored=16, fps=5.0), TemporalConfig(jitter=False, reverse=0.0, speed=1.0), seed=1)(
        0, index
    )
    spans = fast[:, -1] - fast[:, 0]
    assert spans.min() <= 2 and spans.max() >= 5 and (np.diff(fast) >= 0).all()
    back = FrameSampler(clip(stored=8, reversible=True), TemporalConfig(jitter=False, reverse=0.5, speed=0.0), seed=1)(
        0, index
    )
    share = (back[:, 0] > back[:, -1]).mean()
    assert 0.4 < share < 0.6 and {tuple(sorted(row)) for row in back.tolist()} == {(1, 3, 5, 7)}


def test_a_draw_is_a_function_of_seed_epoch_and_row():
    draws = TemporalConfig(jitter=True, reverse=0.5, speed=0.5)
    picks = FrameSampler(clip(stored=16, reversible=True), draws, seed=1)
    index = np.arange(50)
    assert np.array_equal(picks(2, index)[10:20], picks(2, index[10:20]))
    assert not np.array_equal(picks(2, index), picks(3, index))
    assert not np.array_equal(picks(2, index), FrameSampler(clip(stored=16, reversible=True), draws, seed=2)(2, index))


def test_reversal_is_refused_where_the_label_is_an_order():
    with pytest.raises(ValueError, match=r"augment.temporal.reverse = 0.5 needs data.clip.reversible = true"):
        FrameSampler(clip(), TemporalConfig(jitter=False, reverse=0.5, speed=0.0), seed=0)
    with pytest.raises(ValueError, match=r"data.clip.stored = 3 is less than data.clip.frames = 4"):
        clips.check(clip(stored=3))
    images = DatasetCard("made", ["a"], {}, 1, 8, 8, [0.5], [0.2], [], "")
    assert make_frame_sampler(images, None, seed=0) is None
    with pytest.raises(ValueError, match="augment.temporal is for clips"):
        make_frame_sampler(images, STILL, seed=0)


# -- the store -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("encoding", ["raw", "jpeg"])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_store_gives_clips_back_and_frames_of_them(tmp_path, encoding, channels):
    made = np.stack(
        [np.stack([frame[:16, :16, :channels] for frame in numbered(30)[k : k + 6]]) for k in range(0, 18, 3)]
    )
    made[..., 8:, 8:, :] = made[..., -1:, -1:, :]
    row = {"label": 0, "weight": 1.0, "group": "g", "source_width": 1, "source_height": 1, "source_mode": "h264"}
    with SplitWriter(
        tmp_path, height=16, width=16, channels=channels, encoding=encoding, targets=[LABEL], frames=6
    ) as writer:
        for half in (made[:2], made[2:]):
            writer.write(
                [
                    row | {"id": "a", "source_id": "a", "slices": "{}", "image": encode_clip(each, encoding)}
                    for each in half
                ]
            )
    split = Split(tmp_path)
    assert split.frames == 6
    near = 0 if encoding == "raw" else 12
    assert np.abs(split.images([4, 0]).astype(int) - made[[4, 0]]).max() <= near
    picks = np.array([[5, 0, 0], [2, 3, 1]])
    expected = np.stack([made[3][picks[0]], made[1][picks[1]]])
    assert np.abs(split.images(np.array([3, 1]), picks).astype(int) - expected).max() <= near
    assert unpack(pack([b"a", b"", b"ccc"])) == [b"a", b"", b"ccc"]


# -- one draw for all frames ---------------------------------------------------------------------------------
@pytest.mark.parametrize("name", POLICIES)
def test_every_shipped_policy_treats_all_frames_of_a_clip_alike(name):
    section = shipped(name)
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (5, 3, 32, 32, 3), dtype=np.uint8)
    still = np.repeat(frames[:, :1], 3, axis=1)
    index = np.arange(5)
    item = OnlineAugmentation("item", section.online, 3)
    alike = item.items(still, 1, index)
    assert (alike == alike[:, :1]).all(), "frames that were equal stay equal"
    together = item.items(frames, 1, index)
    for number in range(3):
        assert np.array_equal(together[:, number], item.items(frames[:, number], 1, index))
    batch = OnlineAugmentation("batch", section.online, 3)
    tensor = torch.from_numpy(frames).movedim(-1, -3)
    said = batch.batch(tensor, 1, torch.from_numpy(index))
    assert said.shape == tensor.shape
    for number in range(3):
        assert torch.equal(said[:, number], batch.batch(tensor[:, number], 1, torch.from_numpy(index)))


# -- preprocessing -------------------------------------------------------------------------------------------
def source(root, count=8):
    """Two classes of films that differ in how they begin."""
    for label, first in (("early", 0), ("late", 30)):
        for number in range(count):
            film(root / label / f"{number}.mp4", numbered(60, mark=number)[first : first + 20 + number], fps=20)
    return root


def test_class_folders_of_films(tmp_path):
    root = source(tmp_path / "films")
    (root / "early" / "broken.mp4").write_bytes(b"not a film at all")
    (root / "early" / "notes.txt").write_text("hello")
    (root / "late" / "picture.jpg").write_bytes(b"\xff\xd8\xff" + bytes(20))
    audit = prepare(
        root, data(clip={"stored": 8, "views": 2}), TARGET, seed=0, out=tmp_path / "out", work=tmp_path / "work"
    )
    assert audit.usable == 16 and audit.quarantined == {"not a video": 1} and audit.animated == 0
    assert audit.ignored == {"not a video by name or content": 2} and audit.formats == {"MP4": 16}
    card = DatasetCard.read(tmp_path / "out" / "card.json")
    assert card.frames == 4 and card.clip["views"] == 2 and card.clip["stored"] == 8
    splits = {name: Split(tmp_path / "out" / name) for name in SPLITS}
    assert [splits[name].frames for name in SPLITS] == [8, 4, 4]
    test = splits["test"].table
    assert sum(card.counts["test"].values()) * 2 == len(test), "a card counts videos, a split holds their views"
    assert test["id"].tolist() == [f"{name}@{view}" for name in test["source_id"].unique() for view in (0, 1)]
    first = splits["train"].table.iloc[0]
    frames = splits["train"].images([0])[0]
    expected = video_numbers(root / first["id"], np.linspace(0, 1, 17)[1::2])
    assert numbers(frames) == pytest.approx(expected, abs=1)


def video_numbers(path, shares):
    from stillframe.ingest.video import decode

    return numbers(decode.frames_at(path, shares * decode.probe(path).seconds))


def test_the_same_input_gives_the_same_bytes(tmp_path):
    root = source(tmp_path / "films", 5)
    hashes = []
    for name in ("a", "b"):
        prepare(root, data(), TARGET, seed=0, out=tmp_path / name, work=tmp_path / "work")
        hashes.append([(tmp_path / name / part / "data-00000-of-00001.arrow").read_bytes() for part in SPLITS])
    assert hashes[0] == hashes[1]


def test_a_table_of_parts_keeps_each_file_in_one_split(tmp_path):
    root = tmp_path / "films"
    rows = []
    for number in range(9):
        film(root / f"{number}.mp4", numbered(60, mark=number), fps=20)
        rows += [(f"{number}.mp4", "early", 0, 1.0), (f"{number}.mp4", "late", 1.5, ""), (f"{number}.mp4", "mid", 1, 2)]
    rows += [("0.mp4", "late", 5, 6), ("0.mp4", "late", 2, 1), ("1.mp4", "mid", "x", ""), ("1.mp4", "mid", 0, 99)]
    pd.DataFrame(rows, columns=["path", "label", "from", "to"]).to_csv(root / "clips.csv", index=False)
    columns = DATA["columns"] | {"start": "from", "end": "to"}
    audit = prepare(root, data(columns=columns), TARGET, seed=0, out=tmp_path / "out", work=tmp_path / "work")
    assert audit.quarantined == {
        "outside the video": 2,
        "start is not before end, or less than 0": 1,
        "start or end is not a number": 1,
    }
    home = {}
    for name in SPLITS:
        split = Split(tmp_path / "out" / name)
        for row, frames in zip(split.table.itertuples(), split.images(range(len(split))), strict=True):
            file, part = row.id.split("#")
            assert home.setdefault(file, name) == name, "parts of one file are never on both sides"
            shown = numbers(frames)
            assert {"0-1": shown[-1] < 20, "1.5-": shown[0] >= 30, "1-2": 20 <= shown[0] and shown[-1] < 40}[part]
    assert len(home) == 9


def test_given_splits_that_tear_a_file_apart_are_leaks(tmp_path):
    root = tmp_path / "films"
    rows = []
    for number in range(12):
        film(root / f"{number}.mp4", numbered(60, mark=number), fps=20)
        split = ["train", "val", "test"][number % 3]
        rows += [(f"{number}.mp4", "early", 0, 1, split), (f"{number}.mp4", "late", 2, 3, split)]
    rows[-1] = (*rows[-1][:4], "train")  # the other part of 11.mp4 is in the test split
    pd.DataFrame(rows, columns=["path", "label", "start", "end", "split"]).to_csv(root / "clips.csv", index=False)
    columns = DATA["columns"] | {"start": "start", "end": "end", "split": "split"}
    audit = prepare(root, data(columns=columns), TARGET, seed=0, out=tmp_path / "out", work=tmp_path / "work")
    assert audit.quarantined == {"leak": 1}
    assert "another part of the same video is in the test split" in (tmp_path / "out" / "quarantine.csv").read_text()


def test_copies_of_one_film_are_found(tmp_path):
    root = source(tmp_path / "films")
    (root / "early" / "copy.mp4").write_bytes((root / "early" / "3.mp4").read_bytes())
    (root / "late" / "conflict.mp4").write_bytes((root / "early" / "0.mp4").read_bytes())
    audit = prepare(root, data(near_duplicates="report"), TARGET, seed=0, out=tmp_path / "out", work=tmp_path / "work")
    assert audit.quarantined == {"conflict": 2} and audit.exact == {"groups": 1, "images": 2}


# -- batches, copies, the sheet ------------------------------------------------------------------------------
@pytest.fixture
def prepared(tmp_path):
    root = source(tmp_path / "films")
    prepare(root, data(clip={"stored": 8, "views": 3}), TARGET, seed=0, out=tmp_path / "out", work=tmp_path / "work")
    return tmp_path / "out"


def test_batches_of_clips(prepared):
    card = DatasetCard.read(prepared / "card.json")
    temporal = TemporalConfig(jitter=True, reverse=0.0, speed=0.0)
    rows = SplitDataset(
        [prepared / "train"],
        OnlineAugmentation("item", [{"HorizontalFlip": {"p": 1.0}}], 0),
        sampler=make_frame_sampler(card, temporal, seed=0),
    )
    batch = rows[(2, np.array([0, 3]))]
    assert batch.image.shape == (2, 4, 3, 16, 16)
    plain = Split(prepared / "train").images(np.array([0, 3]), rows.sampler(2, np.array([0, 3])))
    assert np.array_equal(batch.image.movedim(-3, -1).numpy(), plain[:, :, :, ::-1])
    val = SplitDataset([prepared / "val"], views=3)
    split = Split(prepared / "val")
    assert len(val) * 3 == len(split)
    assert np.array_equal(val[(0, np.array([1]))].image.movedim(-3, -1).numpy()[0], split.images([4])[0])


def test_offline_copies_and_the_sheet_of_clips(prepared, tmp_path):
    section = augment([{"VerticalFlip": {"p": 0.5}}])
    section = type(section)(**(vars(section) | {"offline": [{"HorizontalFlip": {"p": 1.0}}], "copies": 1}))
    make_copies(prepared / "train", section, seed=0, out=tmp_path / "copies", work=tmp_path / "work")
    train, copies = Split(prepared / "train"), Split(tmp_path / "copies")
    assert copies.frames == 8
    assert np.array_equal(copies.images([2]), train.images([2])[:, :, :, ::-1])
    card = DatasetCard.read(prepared / "card.json")
    preview.make_preview(
        tmp_path / "sheet.png",
        train=prepared / "train",
        augmented=tmp_path / "copies",
        augment=section,
        classes=card.classes,
        name=card.name,
        seed=0,
        draw=TARGET.draw,
        sampler=make_frame_sampler(card, None, seed=0),
    )
    from PIL import Image

    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 700


def test_a_card_of_images_says_nothing_of_clips(tmp_path):
    DatasetCard("made", ["a", "b"], {}, 1, 8, 8, [0.5], [0.2], [], "").write(tmp_path / "card.json")
    assert not {"frames", "clip", "pixels"} & set(json.loads((tmp_path / "card.json").read_text()))
    assert yaml.safe_load((tmp_path / "card.json").read_text())["height"] == 8
