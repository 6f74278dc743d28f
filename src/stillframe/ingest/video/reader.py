"""An open video file: judged by its header and its end, then asked for the frame at a second, with few seeks.

What is opened is one local file in one of `CONTAINERS`: no play list, no address, nothing that names another file.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stillframe.ingest.decode import WHITE, InvalidImage, Pixels

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,gif,mpeg,mpegts,ogg,asf,flv"
MAX_HOURS = 100.0  # a header that says more is taken for damaged
SLACK_S, SLACK = 1.0, 0.02  # a file that ends earlier than its header says by more than either was cut short
ALPHA = frozenset({"rgba", "bgra", "argb", "abgr", "yuva420p", "yuva422p", "yuva444p", "ya8", "pal8"})
TAIL_S = 5.0  # how far before its end a file is looked at for where it really ends
BLIND_JUMP_S = 10.0  # without an index of key frames a gap up to here is decoded through, a longer one is sought


@dataclass(frozen=True)
class VideoInfo:
    """What is known of a video without decoding it.

    Attributes:
        format: of the container, by its content, in FFmpeg's words, e.g. "mov,mp4,m4a,3gp,3g2,mj2".
        codec: e.g. "h264".
        width: px, upright (after rotation).
        height: px, upright.
        channels: 1 (the pixel format is gray) or 3.
        seconds: from the first frame's time to the end of the last frame.
        fps: frames a second on average, by the header; 0.0 where it does not say.
        frames: as the header counts them; 0 where it does not.
    """

    format: str
    codec: str
    width: int
    height: int
    channels: int
    seconds: float
    fps: float
    frames: int


class VideoReader:
    """An open container with its one video stream, and where in it decoding stands.

    Stamps are times in the stream's own unit (`base` seconds) on the file's own clock.
    """

    facts: VideoInfo

    def __init__(self, path: Path, pixels: int, threads: int) -> None:
        from av.video.reformatter import VideoReformatter

        self.path, self.limit, self.threads = path, str(pixels), threads
        self.painter = VideoReformatter()  # one for all frames: a frame of PyAV would make its own
        self.start, self.turn = 0, 0  # stamp of the first frame; quarter turns, counter-clockwise, that make it upright
        self.now: VideoFrame | None = None
        self.ahead: VideoFrame | None = None  # decoded already, and later than what was asked for
        self._open()

    def _open(self) -> None:
        """Open the container, and stand before its first frame."""
        import av

        options = {"format_whitelist": CONTAINERS, "protocol_whitelist": "file", "max_pixels": self.limit}
        self.container: InputContainer = av.open(
            f"file:{self.path.absolute()}", options=options, metadata_errors="replace"
        )
        cover = av.stream.Disposition.attached_pic
        streams = [stream for stream in self.container.streams.video if not stream.disposition & cover]
        if not streams:
            kinds = sorted({str(stream.type) for stream in self.container.streams})
            self.container.close()
            raise InvalidImage(f"no video stream: the file holds {', '.join(kinds) or 'nothing'}")
        self.stream: VideoStream = streams[0]
        self.stream.codec_context.thread_count = self.threads
        self.stream.codec_context.options = {"max_pixels": self.limit}
        self.base = float(self.stream.time_base or 0) or 1e-6
        self.by_dts = self.container.format.name == "avi"  # which knows no other times: its pts of B-frames are made up
        self.now, self.ahead, self.frames = None, None, self._decoded()

    def judge(self, min_px: int, max_megapixels: float) -> None:
        """Fill in `facts`, and stand before the first frame (InvalidImage: a video that is not used)."""
        self._judge_size(min_px, max_megapixels)
        frame = next(self.frames, None)
        if frame is None:
            raise InvalidImage("no frames: the video stream is empty, or nothing of it decodes")
        self.start, self.turn = stamp_of(frame), round(frame.rotation / 90) % 4
        size = (frame.width, frame.height)
        width, height = size[::-1] if self.turn % 2 else size
        self.facts = VideoInfo(
            format=self.container.format.name,
            codec=self.stream.codec_context.name,
            width=width,
            height=height,
            channels=1 if frame.format.name.startswith("gray") else 3,
            seconds=max(self._judge_end(), self.base),
            fps=float(self.stream.average_rate or 0),
            frames=self.stream.frames,
        )
        self._rewind()

    def _judge_size(self, min_px: int, max_megapixels: float) -> None:
        width, height = self.stream.codec_context.width, self.stream.codec_context.height
        if width * height > max_megapixels * 1e6:
            raise InvalidImage(f"too large: {width} x {height} px, more than data.max_megapixels = {max_megapixels:g}")
        if width * height and min(width, height) < min_px:
            raise InvalidImage(f"too small: {width} x {height} px, less than data.min_px = {min_px}")

    def _judge_end(self) -> float:
        """Where the frames end, s from the first one (InvalidImage: that is not where the header says)."""
        import av

        if self.container.format.name == "gif":
            with self.path.open("rb") as file:
                file.seek(-min(16, self.path.stat().st_size), 2)
                if not file.read().rstrip(b"\0").endswith(b";"):
                    raise InvalidImage("truncated: a GIF file ends with its trailer, and this one does not")
        # The duration from the first frame that the header states, s; 0 where it states none.
        stated = float(self.stream.duration or 0) * self.base
        if not stated:  # only the container states its end, on the file's own clock
            stated = max(0.0, float(self.container.duration or 0) / av.time_base - self.start * self.base)
        if stated > MAX_HOURS * 3600:
            raise InvalidImage(f"absurd duration: the header says {stated / 3600:.3g} hours, more than {MAX_HOURS:g}")
        ends, ends_any = self._ends(stated)
        if ends_any < stated - max(SLACK_S, SLACK * stated):
            raise InvalidImage(f"truncated: the header says {stated:.2f} s, the file ends at {ends_any:.2f} s")
        return ends

    def _ends(self, stated: float) -> tuple[float, float]:
        """Where the video stream and where any stream ends, s from the first frame: by packets, nothing is decoded."""
        self._jump(self.start + max(0.0, stated - TAIL_S) / self.base)
        ends, ends_any = 0.0, 0.0
        origin, rate = self.start * self.base, float(self.stream.average_rate or self.stream.guessed_rate or 0)
        units = {stream.index: float(stream.time_base or 0) for stream in self.container.streams}
        for packet in self.container.demux():
            stamp = packet.dts if self.by_dts else packet.pts
            if stamp is None or not packet.size:
                continue
            unit = units[packet.stream_index]  # as a float: products of fractions took longer than the packets
            span = (packet.duration or 0) * unit
            if packet.stream_index == self.stream.index:
                span = span or (1 / rate if rate else 0.0)
                ends = max(ends, stamp * unit - origin + span)
            ends_any = max(ends_any, stamp * unit - origin + span)
        if ends == 0.0 and stated > TAIL_S:  # sound alone near the end: where the pictures end is found by reading on
            return self._ends(0.0)[0], ends_any
        return ends, ends_any

    def frame_at(self, second: float) -> VideoFrame:
        """The frame that is shown at a second; the first before the video's begin, the last after its end."""
        target = self.start + (second + 1e-3) / self.base  # a millisecond: 3 / 30 s is the third frame, not the second
        if self.now is not None and stamp_of(self.now) > max(target, self.start):
            self._seek(target)
        elif self._worth_a_jump(target):
            self._seek(target)
        while (frame := self.ahead or next(self.frames, None)) is not None:
            self.ahead = frame
            if self.now is not None and stamp_of(frame) > target:
                break
            self.now, self.ahead = frame, None
        if self.now is None:
            raise InvalidImage(f"damaged: no frame decodes at {second:.2f} s")
        return self.now

    def _worth_a_jump(self, target: float) -> bool:
        """Whether a key frame lies between here and there; by the gap where the file's index does not tell."""
        here = self.start if self.now is None else stamp_of(self.now)
        index = self.stream.index_entries
        number = index.search_timestamp(int(target)) if len(index) else -1
        if number >= 0 and index[number].timestamp > here:
            return True
        indexed = 0 <= number < len(index) - 1
        return not indexed and (target - here) * self.base > BLIND_JUMP_S

    def _seek(self, target: float) -> None:
        """Stand before a key frame that is shown at `target` or earlier."""
        back = 0.0  # s; key frames are found by when they are decoded, and that may be earlier than they are shown
        while target - back / self.base > self.start:
            if not self._jump(target - back / self.base):
                break
            self.ahead = next(self.frames, None)
            if self.ahead is not None and stamp_of(self.ahead) <= target:
                return
            back = 2 * back + 1.0
        self._rewind()

    def _jump(self, stamp: float) -> bool:
        """Go to a key frame near `stamp`; False where the file cannot be sought."""
        import av

        try:
            self.container.seek(int(stamp), stream=self.stream)
        except av.error.FFmpegError:
            self._reopen()
            return False
        self.now, self.ahead, self.frames = None, None, self._decoded()
        return True

    def _rewind(self) -> None:
        """Stand before the first frame: by opening again where a seek does not lead there."""
        if self._jump(self.start):
            self.ahead = next(self.frames, None)
            if self.ahead is None or stamp_of(self.ahead) != self.start:
                self._reopen()

    def _reopen(self) -> None:
        """Stand before the first frame, as every container can."""
        self.container.close()
        self._open()

    def _decoded(self) -> Iterator[VideoFrame]:
        """Frames from where the container stands, each with its stamp as `pts`."""
        last, rate = None, float(self.stream.average_rate or self.stream.guessed_rate or 0)
        for frame in self.container.decode(self.stream):
            stamp = frame.dts if self.by_dts or frame.pts is None else frame.pts
            if stamp is None and last is not None and rate:  # the last frames of an AVI file
                stamp = last + max(1, round(1 / rate / self.base))
            if stamp is None:
                raise InvalidImage("damaged: a frame without a time")
            if frame.is_corrupt:
                raise InvalidImage(f"damaged: the frame at {(stamp - self.start) * self.base:.2f} s")
            frame.pts = last = stamp
            yield frame

    def pixels(self, frame: VideoFrame) -> Pixels:
        """A frame as uint8 (H, W, C), upright, in the video's size even where the stream changes its own."""
        width, height = self.facts.width, self.facts.height
        if self.turn % 2:
            width, height = height, width
        clear = frame.format.name in ALPHA
        form = "gray" if self.facts.channels == 1 else "rgba" if clear else "rgb24"
        image = self.painter.reformat(frame, width, height, form, threads=1).to_ndarray()
        if clear:
            values, opaque = image[:, :, :3].astype(np.uint16), image[:, :, 3:].astype(np.uint16)
            image = ((values * opaque + WHITE * (255 - opaque) + 127) // 255).astype(np.uint8)
        return np.ascontiguousarray(np.rot90(image.reshape(height, width, -1), self.turn))


def stamp_of(frame: VideoFrame) -> int:
    """When a frame is shown, in its stream's unit on the file's own clock."""
    assert frame.pts is not None  # set by Film._decoded
    return frame.pts
