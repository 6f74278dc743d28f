"""The real process on a real socket: signals, clients that are slow, rude or many, and the exit code."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from apps import Made
from sending import png

from door import environment
from stillframe.cli import main
from stillframe.serving import run
from stillframe.serving.settings import read

ROOT = Path(__file__).parents[2]


class Said(NamedTuple):
    """A response."""

    status: int
    headers: dict[str, str]
    text: str

    @property
    def error(self) -> str:
        return str(json.loads(self.text)["error"])


class Running:
    """`stillframe serve` in a process of its own, on a free port."""

    def __init__(self, folder: Path, model: Path, key: str | None = None, **settings: Any) -> None:
        file = folder / "serve.yaml"
        file.write_text(yaml.safe_dump({"threads": 1, "access_log": False, **settings}), encoding="utf-8")
        words = ["-m", "stillframe.cli", "serve", "--model", str(model), "--config", str(file), "--port", "0"]
        env = environment(folder) | {"PYTHONPATH": str(ROOT / "src")}
        env |= {} if key is None else {"STILLFRAME_API_KEY": key}
        self.log = (folder / "log").open("w+")
        self.process = subprocess.Popen(
            [sys.executable, *words], cwd=folder, env=env, stdout=subprocess.PIPE, stderr=self.log, text=True
        )
        assert self.process.stdout is not None
        self.said = self.process.stdout.readline() + self.process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:(\d+)", self.said)
        assert found, self.said + self.errors()
        self.port = int(found.group(1))
        while "startup complete" not in self.errors():
            assert self.process.poll() is None, self.errors()

    def errors(self) -> str:
        self.log.seek(0)
        return self.log.read()

    def ask(self, method: str = "POST", path: str = "/predict", body: Any = None, **headers: str) -> Said:
        with closing(HTTPConnection("127.0.0.1", self.port, timeout=60)) as connection:
            connection.request(method, path, body, {"content-type": "image/png", **headers})
            response = connection.getresponse()
            return Said(response.status, dict(response.headers), response.read().decode())

    def begin(self, content: bytes, sent: int) -> socket.socket:
        """A prediction of which only the first bytes arrive, and are read."""
        client = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        head = f"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Type: image/png\r\nContent-Length: {len(content)}\r\n\r\n"
        client.sendall(head.encode() + content[:sent])
        while "stillframe_requests_in_hand 1.0" not in self.ask("GET", "/metrics").text:
            assert self.process.poll() is None
        return client

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


Starting = Callable[..., Running]


@pytest.fixture
def start(made: Made, tmp_path: Path) -> Iterator[Starting]:
    started: list[Running] = []

    def begin(**settings: Any) -> Running:
        started.append(Running(tmp_path, made.file, **settings))
        return started[-1]

    yield begin
    for one in started:
        one.process.kill()
        one.process.wait()
        assert one.process.stdout is not None
        one.process.stdout.close()
        one.log.close()


def answer(client: socket.socket) -> tuple[int, dict[str, str], Any]:
    """Status, headers and JSON of what comes back until the connection closes."""
    said = b""
    while part := client.recv(65536):
        said += part
    client.close()
    head, _, body = said.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    return int(first.split()[1]), headers, json.loads(body)


def test_sigterm_answers_what_is_in_hand_refuses_what_is_new_and_exits_0(start: Starting) -> None:
    server, content = start(), png()
    client = server.begin(content, 40)
    server.process.send_signal(signal.SIGTERM)
    while "Shutting down" not in server.errors():
        assert server.process.poll() is None
    with pytest.raises(ConnectionError):
        server.ask(body=content)
    assert server.process.poll() is None
    client.sendall(content[40:])
    status, _, said = answer(client)
    assert status == 200 and said["predictions"][0]["decision"] in ("cat", "dog ü")
    assert server.process.wait(60) == 0
    assert "cut off" not in server.errors()


def test_what_is_not_answered_by_the_end_of_the_drain_is_cut_off_and_exits_1(start: Starting) -> None:
    server = start(drain_s=0.5)
    client = server.begin(png(), 40)
    assert server.stop() == 1
    assert "1 requests were cut off after 0.5 s" in server.errors()
    client.close()


def test_limits_on_a_real_socket(start: Starting) -> None:
    """A body far over the limit is refused with a reason that arrives, a busy server says so, a slow client ends."""
    server, content = start(max_requests=1, max_body_mb=0.1, timeout_s=1.5), png()
    said = server.ask(body=bytes(4_000_000))
    assert said.status == 413 and said.error == "too large"
    said = server.ask(body=(bytes(50_000) for _ in range(40)))
    assert said.status == 413 and said.error == "too large"
    client = server.begin(content, 40)
    said = server.ask(body=content)
    assert said.status == 503 and said.headers["retry-after"] == "1" and said.error == "overloaded"
    status, _, slow = answer(client)
    assert status == 408 and slow["error"] == "too slow"
    assert server.ask(body=content).status == 200
    assert server.stop() == 0


def test_what_is_no_http_is_refused_in_json(start: Starting) -> None:
    server = start()
    for sent in (
        b"hello\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 100_000,
        b"\x16\x03\x01\x02\x00\x01\r\n\r\n",
    ):
        client = socket.create_connection(("127.0.0.1", server.port), timeout=60)
        client.sendall(sent)
        status, headers, said = answer(client)
        assert status == 400 and headers["content-type"] == "application/json" and said["error"] == "bad request"
    for part in (b"POST /predict HTTP/1.1\r\n", b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nabc"):
        with socket.create_connection(("127.0.0.1", server.port), timeout=60) as client:
            client.sendall(part)  # and it goes away
    assert server.ask(body=png()).status == 200
    assert server.ask("GET", "/ready").status == 200
    assert "Traceback" not in server.errors()


def test_the_key_of_the_environment_locks(start: Starting) -> None:
    server = start(key="a key")
    assert server.ask(body=png()).status == 401
    assert server.ask(body=png(), authorization="Bearer a key").status == 200
    assert server.ask("GET", "/ready").status == 200
    assert "a key" not in server.said + server.errors()


def test_the_parts_of_a_response_are_sent_at_once() -> None:
    """asyncio sets TCP_NODELAY on connections of a socket that names its protocol, and on no other."""

    async def of_a_connection() -> int:
        found: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connection = writer.get_extra_info("socket")
            found.set_result(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        with run.bound(read(None, port=0)) as door:
            async with await asyncio.start_server(accepted, sock=door):
                _, writer = await asyncio.open_connection(*door.getsockname())
                value = await found
                writer.close()
                await writer.wait_closed()
        return value

    assert asyncio.run(of_a_connection()) != 0


def test_faults_at_the_start_are_one_line(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for words, reason in (
            (["--model", str(made.file), "--port", port], "--port 0 takes any free one"),
            (["--model", str(made.file), "--port", "70000"], "serve.port"),
            (["--model", "nowhere.onnx"], "nowhere.onnx is missing"),
            (["--config", "nowhere.yaml"], "nowhere.yaml is not a file"),
        ):
            with pytest.raises(SystemExit) as ended:
                main(["serve", *words])
            assert reason in str(ended.value)
        monkeypatch.setenv("STILLFRAME_API_KEY", "")
        with pytest.raises(SystemExit, match="holds no key"):
            main(["serve", "--model", str(made.file)])
