"""The made videos: real files, a label that is in the order of the frames and nowhere else."""

import struct

import numpy as np
import pytest

from stillframe.ingest.sources import read_folders
from stillframe.ingest.video import decode
from stillframe.tasks.video_classification import demo_data as motion
from stillframe.tasks.video_classification.target import TARGET


@pytest.fixture
def garments(tmp_path):
    folder = tmp_path / "idx"
    folder.mkdir()
    for name, count in (("train", 40), ("t10k", 10)):
        images = np.random.default_rng(count).integers(0, 256, (count, 28, 28), dtype=np.uint8)
        head = struct.pack(">HBB3I", 0, 8, 3, count, 28, 28)
        (folder / f"{name}-images-idx3-ubyte").write_bytes(head + images.tobytes())
    return folder


def test_real_files_in_split_and_class_folders(tmp_path, garments):
    out = tmp_path / "work" / "new"
    out.mkdir(parents=True)
    motion.make(garments, out, clips={"train": 2, "val": 1, "test": 1})
    rows = read_folders(out, split=True, target=TARGET, videos=True).rows
    assert len(rows) == 20 and {row.target for row in rows} == set(motion.TURNS)
    facts = decode.probe(out / rows[0].id)
    assert (facts.codec, facts.width, facts.height) == ("h264", 64, 64) and facts.seconds == pytest.approx(2.0)
    again = tmp_path / "work" / "again"
    again.mkdir()
    motion.make(garments, again, clips={"train": 2, "val": 1, "test": 1})
    assert all((out / row.id).read_bytes() == (again / row.id).read_bytes() for row in rows)


def test_without_their_order_the_frames_say_nothing():
    """In each class, and in each frame, every angle is as likely; and no class has a part of the circle more often."""
    for name in motion.TURNS:
        turn = np.stack([motion.angles(name, np.random.default_rng([3, number])) for number in range(600)])
        for harmonic in (1, 2, 3):
            wave = np.exp(2j * np.pi * harmonic * turn)
            assert np.abs(wave.mean(0)).max() < 0.15, "of all clips, frame by frame"
            assert np.abs(wave.mean(1)).max() < 0.15, "of all frames, clip by clip"


def test_the_order_says_all():
    half = motion.FRAMES // 2
    for name, (first, second) in motion.TURNS.items():
        for number in range(20):
            turn = motion.angles(name, np.random.default_rng([4, number]))
            gone = np.array([turn[half - 1] - turn[0], turn[-1] - turn[half]]) * half / (half - 1)
            way = np.sign(gone[0]) * np.sign(first)
            assert way == 1 or name in motion.EITHER_WAY
            assert gone * way == pytest.approx([first, second], abs=0.1)


def test_no_idx_files_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="no idx files of train and test images"):
        motion.make(tmp_path, tmp_path / "out")
