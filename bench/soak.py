"""Twenty thousand mixed requests, good and bad, on loopback: each gets the answer that it deserves, memory stays flat.

    python -m bench.soak                              20,000 requests, 16 clients, a small net with random weights
    python -m bench.soak --model FILE.onnx --requests 2000

Exit code 1 when a request got another status than its own, or a good image another answer than before, or when the
server's memory grew by more than a tenth between 10 % and 100 % of the requests, or it did not end with 0.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import json
import struct
import sys
import tempfile
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from bench.serving import Load, Request, Server, ask_all, made_file, ours, said
from PIL import Image

FLAT = 1.10  # memory at the end, at most so many times that at 10 %
CLOSE = 1e-3  # of a probability: batches of another size add in another order


def picture(seed: int, width: int, height: int, kind: str = "PNG", mode: str = "RGB") -> bytes:
    """A smooth random picture as a file."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
    file = io.BytesIO()
    coarse.resize((width, height), Image.Resampling.BICUBIC).convert(mode).save(file, kind)
    return file.getvalue()


def bomb() -> bytes:
    """A PNG of 3.6 gigapixels in 69 bytes."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@dataclass(frozen=True)
class Kind:
    """A kind of request and the status that it deserves."""

    name: str
    status: int
    make: Callable[[], Request]


def raw(content: bytes, kind: str = "image/png") -> Request:
    """The body is the image."""
    return "POST", {"path": "/predict", "data": content, "headers": {"content-type": kind}}


def form(*contents: bytes) -> Request:
    """A form with files."""
    import aiohttp

    data = aiohttp.FormData()
    for at, content in enumerate(contents):
        data.add_field("images", content, filename=f"{at}.png", content_type="image/png")
    return "POST", {"path": "/predict", "data": data}


def words(*values: Any) -> Request:
    """JSON."""
    return "POST", {"path": "/predict", "json": {"images": list(values)}}


def kinds() -> list[Kind]:
    """Thirteen good kinds and fourteen bad ones."""
    good = [picture(at, 60 + 40 * at, 90 + 30 * (at % 3)) for at in range(6)]
    good += [picture(6, 640, 480, "JPEG"), picture(7, 300, 200, "JPEG", "CMYK"), picture(8, 200, 200, "PNG", "L")]
    text = base64.b64encode(good[1]).decode()
    explained = ("POST", {**raw(good[8])[1], "path": "/predict?explain=true"})
    found = [Kind(f"good {at}", 200, lambda one=one: raw(one)) for at, one in enumerate(good)]
    found += [
        Kind("form of three", 200, lambda: form(*good[:3])),
        Kind("base64", 200, lambda: words(text, {"name": "ü", "data": text})),
        Kind("empty", 422, lambda: form(b"")),
        Kind("truncated", 422, lambda: raw(good[2][: len(good[2]) // 2])),
        Kind("truncated JPEG", 422, lambda: raw(good[6][: len(good[6]) // 2])),
        Kind("not an image", 422, lambda: raw(b"<html>")),
        Kind("bomb", 413, lambda: raw(bomb())),
        Kind("one bad of two", 422, lambda: form(good[0], b"no")),
        Kind("too many", 413, lambda: form(*[good[0]] * 17)),
        Kind("too large a body", 413, lambda: raw(bytes(1_100_000))),
        Kind("wrong base64", 400, lambda: words("%%%")),
        Kind("an address", 400, lambda: words("http://127.0.0.1/a.png")),
        Kind("wrong form", 400, lambda: raw(b"--x", "multipart/form-data; boundary=y")),
        Kind("wrong type", 415, lambda: raw(good[0], "text/plain")),
        Kind("wrong method", 405, lambda: ("GET", {"path": "/predict"})),
        Kind("no such path", 404, lambda: ("GET", {"path": "/nowhere"})),
        Kind("figures", 200, lambda: ("GET", {"path": "/metrics"})),
        Kind("heat map", 200, lambda: (explained[0], dict(explained[1]))),
    ]
    return found


@dataclass
class Soak:
    """What came of it.

    Attributes:
        wrong: by kind and status, of the requests that got another status than their own.
        changed: good images whose answer was not that of the first time.
        memory_mb: of the server, at 10 % and at the end.
    """

    wrong: Counter[tuple[str, int]] = field(default_factory=Counter)
    changed: int = 0
    memory_mb: list[float] = field(default_factory=list)
    first: dict[str, list[float]] = field(default_factory=dict)
    largest: float = 0.0

    def check(self, kind: Kind, status: int, body: bytes) -> None:
        """Hold one response against what it should be."""
        if status != kind.status:
            self.wrong[kind.name, status] += 1
            return
        if kind.name == "figures":
            return
        answer = json.loads(body)
        if status != 200:
            assert answer["error"] and answer["reason"], kind.name
            return
        values = [share for one in answer["predictions"] for share in one["probabilities"].values()]
        before = self.first.setdefault(kind.name, values)
        far = max(abs(a - b) for a, b in zip(values, before, strict=True))
        self.largest = max(self.largest, far)
        self.changed += far > CLOSE


def soak(server: Server, *, requests: int, clients: int) -> tuple[Soak, Load]:
    """Ask; a heat map is asked for once in a hundred, everything else in turn."""
    *others, heat = kinds()
    order = np.random.default_rng(0).integers(0, len(others), requests)
    chosen = [heat if number % 100 == 0 else others[at] for number, at in enumerate(order)]
    found, step = Soak(), max(1, requests // 10)

    def seen(number: int, status: int, body: bytes) -> None:
        found.check(chosen[number], status, body)
        if number % step == 0:
            found.memory_mb.append(server.memory_mb())
            print(f"  {number:6,}  {found.memory_mb[-1]:.0f} MB", flush=True)

    making = lambda number: chosen[number].make()  # noqa: E731
    load = asyncio.run(ask_all(server.url, making, clients=clients, requests=requests, seen=seen))
    found.memory_mb.append(server.memory_mb())
    return found, load


def main() -> int:
    """Run it; the exit code."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = args.model or made_file(Path(folder), "plain_cnn", 32)
        with ours(model, threads=args.threads, max_body_mb=1.0) as server:
            found, load = soak(server, requests=args.requests, clients=args.clients)
            busy = server.cpu_s()
    code = server.process.returncode
    early, late = found.memory_mb[1], found.memory_mb[-1]
    print(f"soak: {args.requests:,} requests, {args.clients} clients, {load.seconds:.0f} s: {said(load)}")
    print(f"status: {dict(sorted(load.status.items()))}; server {1e3 * busy / args.requests:.1f} CPU-ms a request")
    print(f"not its own fault: {sum(found.wrong.values())} {dict(found.wrong) or ''}")
    print(f"answers that changed: {found.changed} (largest difference {found.largest:.1e})")
    print(
        f"memory: {early:.0f} MB at 10 %, {late:.0f} MB at 100 % ({late / early:.3f} x); exit code after SIGTERM {code}"
    )
    return int(bool(found.wrong or found.changed or code) or late > FLAT * early)


if __name__ == "__main__":
    sys.exit(main())
