"""Rows 14 and 15: `stillframe serve` with and without batching, and against `mlflow models serve` on the same file."""

from __future__ import annotations

import base64
import io
import statistics
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

from bench.made import photograph
from bench.measuring import Result, Setting
from bench.serving import Load, Request, Server, asking, made_file, ours, started
from PIL import Image

NETS = {"tf_efficientnet_lite0": 128, "plain_cnn": 32}  # the demo's, and one whose calls are mostly overhead
SIZES = [(300, 300), (320, 240), (200, 260), (400, 300)]  # px: differing, as clients send them
CLIENTS, PORT = 16, 5719
Opened = Callable[[], AbstractContextManager[Server]]


def _contents() -> list[bytes]:
    found = []
    for number in range(32):
        file, (width, height) = io.BytesIO(), SIZES[number % len(SIZES)]
        Image.fromarray(photograph(number, 300, 1)[..., 0]).resize((width, height)).save(file, "PNG")
        found.append(file.getvalue())
    return found


def _raw(contents: list[bytes]) -> Callable[[int], Request]:
    def make(number: int) -> Request:
        body = contents[number % len(contents)]
        return "POST", {"path": "/predict", "data": body, "headers": {"content-type": "image/png"}}

    return make


def _records(contents: list[bytes]) -> Callable[[int], Request]:
    texts = [base64.b64encode(one).decode() for one in contents]

    def make(number: int) -> Request:
        record = {"dataframe_records": [{"image": texts[number % len(texts)]}]}
        return "POST", {"path": "/invocations", "json": record}

    return make


class Turns:
    """What two servers did in turns: one is up while the other is not."""

    def __init__(self) -> None:
        self.loads: dict[str, list[Load]] = {}
        self.cpu_ms: dict[str, list[float]] = {}

    def ask(self, name: str, server: Server, make: Callable[[int], Request], clients: int, requests: int) -> None:
        """One load on one server, after a short one."""
        asking(server.url, make, clients=clients, requests=clients + 4)
        before = server.cpu_s()
        load = asking(server.url, make, clients=clients, requests=requests)
        if set(load.status) != {200}:
            raise RuntimeError(f"{name}: {load.status}")
        self.loads.setdefault(name, []).append(load)
        self.cpu_ms.setdefault(name, []).append(1e3 * (server.cpu_s() - before) / requests)

    def rate(self, name: str) -> float:
        """Requests a second, median."""
        return statistics.median(load.per_second for load in self.loads[name])

    def said(self, name: str) -> str:
        """Rate, p99 and CPU of one server."""
        slow = statistics.median(load.quantile_ms(0.99) for load in self.loads[name])
        return f"{self.rate(name):.0f} requests/s, p99 {slow:.0f} ms, {statistics.median(self.cpu_ms[name]):.1f} CPU-ms"


def _take_turns(
    servers: dict[str, tuple[Opened, Callable[[int], Request]]], clients: int, requests: int, rounds: int
) -> Turns:
    turns = Turns()
    for number in range(rounds):
        for name in list(servers) if number % 2 == 0 else list(servers)[::-1]:
            opened, make = servers[name]
            with opened() as server:
                turns.ask(name, server, make, clients, requests)
    return turns


def batching(setting: Setting) -> list[Result]:
    """Row 14: images of several requests in one model call, against one by one."""
    out, requests = [], setting.pick(1500, 100)
    make = _raw(_contents())
    for name, side in NETS.items():
        file = made_file(setting.work, name, side)
        ways: dict[str, Any] = {"batched": {"batch": 8}, "single": {"batch": 1}}
        servers: dict[str, tuple[Opened, Callable[[int], Request]]] = {
            way: (partial(ours, file, threads=setting.threads, **options), make) for way, options in ways.items()
        }
        turns = _take_turns(servers, CLIENTS, requests, setting.pick(4, 1))
        gain = turns.rate("batched") / turns.rate("single")
        note = (
            f"`{name}` at {side} px, {CLIENTS} clients, PNG of four sizes around 300 px: up to 8 images a call "
            f"{turns.said('batched')}; one by one {turns.said('single')}."
        )
        what = f"`stillframe serve`, requests/s with batching against without, `{name}`, {CLIENTS} clients"
        out.append(Result(14, what, "shown", f"{gain:.2f} x", None, note))
    return out


def against_mlflow(setting: Setting) -> list[Result]:
    """Row 15: the same file behind `stillframe serve` and behind `mlflow models serve`."""
    from stillframe.serving.mlflow_flavor import write

    name, contents, out = "tf_efficientnet_lite0", _contents(), []
    file = made_file(setting.work, name, NETS[name])
    model = write(file, setting.work / "mlflow_model")

    def theirs() -> AbstractContextManager[Server]:
        words = [sys.executable, "-m", "mlflow", "models", "serve", "-m", model, "-p", PORT, "--env-manager", "local"]
        return started(words, "unused", threads=setting.threads, port=PORT, path="/ping")

    servers: dict[str, tuple[Opened, Callable[[int], Request]]] = {
        "ours": (partial(ours, file, threads=setting.threads), _raw(contents)),
        "mlflow": (theirs, _records(contents)),
    }
    for clients in (1, CLIENTS):
        turns = _take_turns(servers, clients, setting.pick(800, 60), setting.pick(4, 1))
        gain = turns.rate("ours") / turns.rate("mlflow")
        note = (
            f"`{name}` at {NETS[name]} px, {clients} client(s), one image a request: ours (the body is the image) "
            f"{turns.said('ours')}; MLflow (base64 in JSON, which is what it takes) {turns.said('mlflow')}."
        )
        what = f"`stillframe serve` against `mlflow models serve`, requests/s, {clients} client(s)"
        out.append(Result(15, what, "shown", f"{gain:.2f} x", None, note))
    return out
