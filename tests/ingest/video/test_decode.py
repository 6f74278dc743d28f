import av
import numpy as np
import pytest

from clips import CODECS, film, numbered, numbers
from stillframe.ingest.decode import InvalidImage
from stillframe.ingest.video import decode
from stillframe.ingest.video import reader as films


@pytest.mark.parametrize("suffix", sorted(CODECS))
def test_every_container_gives_the_frame_that_is_shown_at_a_second(tmp_path, suffix):
    path = film(tmp_path / f"a b{suffix}", numbered(60))
    facts = decode.probe(path)
    assert (facts.width, facts.height, facts.channels) == (64, 48, 3)
    assert facts.seconds == pytest.approx(3.0, abs=0.06) and facts.fps == pytest.approx(20.0)
    wanted = [0.0, 2.6, 0.52, 0.5, 0.5, -1.0, 2.95, 99.0, 0.049]
    shown = decode.frames_at(path, wanted)
    assert shown.shape == (9, 48, 64, 3) and shown.dtype == np.uint8
    assert np.abs(np.subtract(numbers(shown), [0, 52, 10, 10, 10, 0, 59, 59, 0])).max() <= 1  # lossy by half a level


@pytest.mark.parametrize("suffix", [".mp4", ".gif", ".avi"])
def test_a_stream_gives_the_frames_that_frames_at_gives(tmp_path, suffix):
    path = film(tmp_path / f"a{suffix}", numbered(50))
    seconds, frames = zip(*decode.stream(path, 8.0, start=0.3, end=2.0), strict=True)
    assert seconds == pytest.approx(0.3 + np.arange(14) / 8)
    assert np.array_equal(np.stack(frames), decode.frames_at(path, seconds))
    assert len(list(decode.stream(path, 40.0))) == 100, "frames are repeated where more are asked for than there are"


def test_a_variable_frame_rate_is_followed(tmp_path):
    path = film(tmp_path / "a.mp4", numbered(6), times=[0, 100, 1000, 1040, 1080, 3000])
    assert numbers(decode.frames_at(path, [0.05, 0.5, 0.99, 1.0, 1.05, 2.9, 3.0])) == [0, 1, 1, 2, 3, 4, 5]


def test_seconds_count_from_the_first_frame(tmp_path):
    path = film(tmp_path / "a.mkv", numbered(10), times=[5000 + 100 * number for number in range(10)])
    assert numbers(decode.frames_at(path, [0.0, 0.55])) == [0, 5]
    assert decode.probe(path).seconds == pytest.approx(1.0, abs=0.11)


@pytest.mark.parametrize(("rotation", "corner"), [(0, (0, 0)), (90, (-1, 0)), (180, (-1, -1)), (270, (0, -1))])
def test_rotation_is_applied_once(tmp_path, rotation, corner):
    path = film(tmp_path / "a.mp4", numbered(4), rotation=rotation)
    frame = decode.frames_at(path, [0.1])[0]
    assert frame.shape == ((64, 48, 3) if rotation % 180 else (48, 64, 3))
    assert frame[corner][0] > 200 and frame[tuple(-1 - place for place in corner)][0] < 50
    facts = decode.probe(path)
    assert (facts.height, facts.width) == frame.shape[:2]


def test_odd_sizes_gray_films_and_transparency(tmp_path):
    odd = film(tmp_path / "odd.mkv", numbered(5, 33, 47), codec=("ffv1", "yuv444p"))
    assert decode.frames_at(odd, [0.1]).shape == (1, 33, 47, 3)
    gray = film(tmp_path / "gray.mkv", numbered(5), codec=("ffv1", "gray"))
    assert decode.probe(gray).channels == 1 and numbers(decode.frames_at(gray, [0.2])) == [4]
    clear = tmp_path / "clear.gif"
    from PIL import Image

    first = Image.new("RGBA", (32, 32), (0, 0, 0, 0))
    second = Image.new("RGBA", (32, 32), (200, 0, 0, 255))
    first.save(clear, save_all=True, append_images=[second], duration=100, disposal=2)
    shown = decode.frames_at(clear, [0.0, 0.1])
    assert (shown[0] == 255).all() and abs(int(shown[1][0, 0, 0]) - 200) < 3


def test_a_missing_duration_is_found_by_reading_packets(tmp_path):
    path = film(tmp_path / "live.webm", numbered(30), live=1)  # a recording that was never closed
    with av.open(str(path)) as container:
        assert not container.duration and not container.streams.video[0].duration
    assert decode.probe(path).seconds == pytest.approx(1.5, abs=0.06)
    assert numbers(decode.frames_at(path, [1.2])) == [24]


def test_sound_that_goes_on_is_no_truncation(tmp_path):
    path = film(tmp_path / "a.mkv", numbered(20), sound_s=20.0)
    assert decode.probe(path).seconds == pytest.approx(1.0, abs=0.06)
    assert numbers(decode.frames_at(path, [15.0])) == [19]


def test_a_long_film_costs_seeks_not_a_whole_decode(tmp_path, monkeypatch):
    path = film(tmp_path / "long.mp4", (frame for _ in range(20) for frame in numbered(60)), fps=1, gop=12)
    assert decode.probe(path).seconds == 1200.0
    decoded = []
    original = films.VideoReader._decoded
    monkeypatch.setattr(
        films.VideoReader, "_decoded", lambda self: (decoded.append(frame) or frame for frame in original(self))
    )
    shown = decode.frames_at(path, [1199.0, 100.0, 610.0, 611.0])
    assert numbers(shown) == [59, 40, 10, 11]
    assert len(decoded) < 100, "of 1,200 frames"


def test_what_is_no_film_is_refused_with_its_reason(tmp_path):
    whole = film(tmp_path / "a.mp4", numbered(60)).read_bytes()
    mkv = film(tmp_path / "a.mkv", numbered(60)).read_bytes()
    gif = film(tmp_path / "a.gif", numbered(60)).read_bytes()
    sound = film(tmp_path / "sound.mkv", [], sound_s=1.0).read_bytes()
    flipped = bytearray(whole)
    flipped[1000:2000:7] = bytes(len(range(1000, 2000, 7)))
    empty = film(tmp_path / "none.avi", numbered(1)).read_bytes()
    empty = empty[: empty.index(b"movi") + 4]
    cases = {
        "empty file": b"",
        "not a video": b"<html>404</html>" * 9,
        "truncated: the index": whole[: len(whole) // 2],
        "truncated: the header says": mkv[: len(mkv) // 2],
        "truncated: a GIF": gif[: len(gif) // 2],
        "no video stream": sound,
        "damaged": bytes(flipped),
        "no frames": empty,
    }
    for reason, content in cases.items():
        path = tmp_path / "case"
        path.write_bytes(content)
        with pytest.raises(InvalidImage, match=reason):
            decode.frames_at(path, np.linspace(0, 3, 60))


def test_no_play_list_and_no_other_file_is_followed(tmp_path):
    film(tmp_path / "a.ts", numbered(20))
    for text in (
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\na.ts\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile a.ts\n",
    ):
        (tmp_path / "list").write_text(text)
        with pytest.raises(InvalidImage, match="not a video"):
            decode.probe(tmp_path / "list")


def test_sizes_and_durations_are_judged_by_the_header(tmp_path):
    path = film(tmp_path / "a.mp4", numbered(5))
    with pytest.raises(InvalidImage, match="too large: 64 x 48 px"):
        decode.probe(path, max_megapixels=0.001)
    with pytest.raises(InvalidImage, match="too small: 64 x 48 px"):
        decode.probe(path, min_px=50)
    late = film(tmp_path / "late.mkv", numbered(2), times=[0, 2_000_000_000])
    with pytest.raises(InvalidImage, match="absurd duration: the header says 556 hours"):
        decode.probe(late)


def test_an_absurd_header_costs_no_memory(tmp_path):
    """The size in the header of an AVI file says 60,000 x 60,000."""
    content = bytearray(film(tmp_path / "a.avi", numbered(3), codec=("rawvideo", "bgr24")).read_bytes())
    place = content.index(b"strf") + 12
    content[place : place + 8] = (60_000).to_bytes(4, "little") * 2
    path = tmp_path / "bomb.avi"
    path.write_bytes(content)
    with pytest.raises(InvalidImage, match="too large|damaged|not a video"):
        decode.frames_at(path, [0.0])


def test_a_file_that_cannot_be_read_is_an_oserror(tmp_path):
    with pytest.raises(FileNotFoundError):
        decode.probe(tmp_path / "none.mp4")
    with pytest.raises(IsADirectoryError):
        decode.frames_at(tmp_path, [0.0])
