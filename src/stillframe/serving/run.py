"""`stillframe serve`: open the model, listen, answer, and end when told to, with what is in hand answered."""

from __future__ import annotations

import ipaddress
import json
import math
import os
import signal
import socket
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from stillframe.inference.load_model import open_model
from stillframe.inference.onnx_model import OnnxModel
from stillframe.model_metadata import digest_of
from stillframe.paths import EXPORT
from stillframe.serving.app import make_app
from stillframe.serving.service import Service
from stillframe.serving.settings import KEY_VARIABLE, ServingSettings, keys, read

LONGEST_HEAD = 16_384  # bytes of a request's line and headers


class LimitedProtocol(H11Protocol):
    """uvicorn's protocol, whose answer to what is no HTTP is JSON, too."""

    def send_400_response(self, msg: str) -> None:
        """Answer and close."""
        body = json.dumps({"error": "bad request", "reason": f"{msg} (heads up to {LONGEST_HEAD} bytes)"}).encode()
        headers = [("content-type", "application/json"), ("content-length", str(len(body))), ("connection", "close")]
        for event in (h11.Response(status_code=400, headers=headers), h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()


class Server(uvicorn.Server):
    """uvicorn's server, which says that it is ending before it does."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self.service = service

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """From here on predictions are refused; what is in hand is answered."""
        self.service.draining = True
        super().handle_exit(sig, frame)


def serve(model: str | None = None, *, config: Path | None = None, **flags: Any) -> int:
    """Serve until SIGTERM or SIGINT; the exit code: 0, or 1 when the end cut requests off after `drain_s`.

    Args:
        model: as of `open_model`.
        config: a file with settings.
        flags: single settings; None: not given.

    Raises:
        FileNotFoundError: no such model or file. ValueError: a setting or the model is not right.
        OSError: the port is taken.
    """
    settings = read(config, **flags)
    api_keys = keys(os.environ.get(KEY_VARIABLE))
    opened = open_model(model, threads=settings.threads)
    file = opened.path if isinstance(opened, OnnxModel) else Path(model or EXPORT) / "model.safetensors"
    service = Service(opened, settings, digest_of(file))
    with bound(settings) as sock:
        _print_address(settings, service, file, sock, bool(api_keys))
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _ignore)  # what uvicorn restores and raises once more at its end
        server = Server(_configuration(make_app(service, api_keys), settings), service)
        server.run(sockets=[sock])
    if not server.started:
        return 1
    if service.dropped:
        print(f"serve: {service.dropped} requests were cut off after {settings.drain_s:g} s", file=sys.stderr)
    return 1 if service.dropped else 0


def _configuration(app: Any, settings: ServingSettings) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=LimitedProtocol,
        ws="none",
        lifespan="on",
        access_log=settings.access_log,
        h11_max_incomplete_event_size=LONGEST_HEAD,
        timeout_graceful_shutdown=math.ceil(settings.drain_s),
        server_header=False,
    )


def bound(settings: ServingSettings) -> socket.socket:
    """A socket at host and port; it listens only when the model is warm (OSError: taken, or no such address)."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # asyncio sets TCP_NODELAY only where the protocol is named; without it a response's second part waits 40 ms
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((settings.host, settings.port))
    except OSError as error:
        sock.close()
        reason = f"serve.host = {settings.host}, serve.port = {settings.port}: {error.strerror or error}"
        raise OSError(f"{reason} (--port 0 takes any free one)") from None
    return sock


def _print_address(settings: ServingSettings, service: Service, file: Path, sock: socket.socket, locked: bool) -> None:
    metadata, (host, port) = service.metadata, sock.getsockname()[:2]
    print(f"serve: {metadata.net} ({metadata.variant}) on {metadata.data}, {len(metadata.classes)} classes: {file}")
    print(f"serve: http://{f'[{host}]' if ':' in host else host}:{port}  (page), /predict, /docs, /metrics", flush=True)
    if not locked and not _loopback(settings.host):
        print(
            f"warning: {settings.host} is reachable from other machines and no key is set ({KEY_VARIABLE})",
            file=sys.stderr,
        )


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _ignore(number: int, frame: FrameType | None) -> None:
    """The signal was handled."""
