"""Servers in processes of their own, and clients that ask them all at once: for rows_serving and soak."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from bench.measuring import ROOT, quiet_environment

Request = tuple[str, dict[str, Any]]  # method, and what aiohttp's request takes


@dataclass
class Load:
    """What clients saw.

    Attributes:
        seconds: of the whole.
        latency_s: of each request.
        status: how many of each; 0: no answer.
    """

    seconds: float = 0.0
    latency_s: list[float] = field(default_factory=list)
    status: dict[int, int] = field(default_factory=dict)

    @property
    def per_second(self) -> float:
        """Requests."""
        return len(self.latency_s) / self.seconds

    def quantile_ms(self, share: float) -> float:
        """Of the latency."""
        return 1e3 * float(np.quantile(self.latency_s, share))


async def ask_all(
    url: str,
    make: Callable[[int], Request],
    *,
    clients: int,
    requests: int,
    seen: Callable[[int, int, bytes], None] = lambda number, status, body: None,
) -> Load:
    """Ask `requests` times, `clients` at a time, each on a connection that is kept.

    Args:
        url: of the server.
        make: the request of a number.
        clients: at once.
        requests: in all.
        seen: told number, status (0: the connection failed) and body of each.
    """
    import aiohttp

    numbers, load = iter(range(requests)), Load()
    connector = aiohttp.TCPConnector(limit=clients)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=120)) as session:

        async def client() -> None:
            for number in numbers:
                method, options = make(number)
                begun = time.perf_counter()
                try:
                    async with session.request(method, url + options.pop("path"), **options) as response:
                        status, body = response.status, await response.read()
                except aiohttp.ClientError as error:
                    status, body = 0, repr(error).encode()
                load.latency_s.append(time.perf_counter() - begun)
                load.status[status] = load.status.get(status, 0) + 1
                seen(number, status, body)

        begun = time.perf_counter()
        await asyncio.gather(*(client() for _ in range(clients)))
        load.seconds = time.perf_counter() - begun
    return load


def asking(url: str, make: Callable[[int], Request], *, clients: int, requests: int) -> Load:
    """`ask_all` in an event loop of its own."""
    return asyncio.run(ask_all(url, make, clients=clients, requests=requests))


@dataclass(frozen=True)
class Server:
    """A running server."""

    url: str
    process: subprocess.Popen[bytes]

    def memory_mb(self) -> float:
        """Resident, of the process and its children."""
        root = psutil.Process(self.process.pid)
        return sum(one.memory_info().rss for one in (root, *root.children(recursive=True))) / 1e6

    def cpu_s(self) -> float:
        """Of the process and its children."""
        root = psutil.Process(self.process.pid)
        times = [one.cpu_times() for one in (root, *root.children(recursive=True))]
        return float(sum(one.user + one.system for one in times))


@contextmanager
def started(
    command: Sequence[object], ready: str, *, threads: int, port: int | None = None, path: str = "/ready"
) -> Iterator[Server]:
    """Run a server until its probe answers; at the end SIGTERM, after 60 s SIGKILL.

    Args:
        command: its words; without `port` it says its address in its output.
        ready: a regular expression whose first group is the port.
        threads: of OpenMP and its kin.
        port: when it is known before.
        path: of the probe.
    """
    with tempfile.TemporaryFile() as log:
        env = quiet_environment(threads, ROOT / "src", ROOT)
        words = [str(word) for word in command]
        process = subprocess.Popen(words, stdout=log, stderr=log, env=env, start_new_session=True)
        try:
            yield Server(_address(process, log, ready, port, path), process)
        finally:
            process.terminate()
            try:
                process.wait(60)
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, 9)
                    process.wait()


def _address(process: subprocess.Popen[bytes], log: Any, ready: str, port: int | None, path: str) -> str:
    from urllib.error import HTTPError, URLError
    from urllib.request import urlopen

    last = time.monotonic() + 120
    while time.monotonic() < last and process.poll() is None:
        time.sleep(0.1)
        said = os.pread(log.fileno(), 1 << 20, 0).decode(errors="replace")
        found = re.search(ready, said)
        at = port or (int(found.group(1)) if found else None)
        if at is None:
            continue
        try:
            with urlopen(f"http://127.0.0.1:{at}{path}", timeout=5):
                return f"http://127.0.0.1:{at}"
        except HTTPError as error:
            error.close()
        except (URLError, OSError):
            continue
    raise RuntimeError(
        f"the server did not start:\n{os.pread(log.fileno(), 1 << 20, 0).decode(errors='replace')[-3000:]}"
    )


def ours(model: Path, *, threads: int, **settings: Any) -> Any:
    """`stillframe serve` of a model (a context manager that gives a `Server`)."""
    import yaml

    file = Path(tempfile.mkdtemp(prefix="serve-")) / "serve.yaml"
    file.write_text(yaml.safe_dump({"access_log": False, **settings}), encoding="utf-8")
    command = [sys.executable, "-m", "stillframe.cli", "serve", "--model", model, "--config", file, "--port", 0]
    command += ["--threads", threads]
    return started(command, r"http://127\.0\.0\.1:(\d+)", threads=threads)


def made_file(folder: Path, name: str, side: int) -> Path:
    """A gray net of two classes with random weights as a file of the export stage: speed does not depend on them."""
    import torch

    from stillframe.export.onnx_graph import net_graph, save, with_preprocessing
    from stillframe.model_metadata import ModelMetadata
    from stillframe.models.build import NetworkSpec, rebuild

    torch.manual_seed(0)
    net = rebuild(NetworkSpec(name, 2, 1, side, [0.5], [0.25], 0.0, 0.0)).eval()
    choices: dict[str, Any] = {"tta": "none", "temperature": 1.0, "threshold": 0.5, "max_megapixels": 20.0}
    image: dict[str, Any] = {"size": side, "channels": 1, "resize": "squash", "min_px": 8}
    origin: dict[str, Any] = {"data": "made", "data_hash": "0" * 64, "run_id": None, "git_commit": None}
    facts = ModelMetadata(
        task="classification", classes=["a", "b"], net=name, variant="fp32", **choices, **image, **origin
    )
    save(with_preprocessing(net_graph(net, facts), facts), folder / f"{name}.onnx")
    return folder / f"{name}.onnx"


def said(load: Load) -> str:
    """Requests a second, and the latency."""
    return f"{load.per_second:.1f} requests/s, p50 {load.quantile_ms(0.5):.1f} ms, p99 {load.quantile_ms(0.99):.1f} ms"
