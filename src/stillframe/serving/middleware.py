"""ASGI middleware: API key, size and concurrency limits, timeout, metrics, security headers."""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import MutableMapping
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stillframe.serving.errors import ApiError
from stillframe.serving.service import Service

PREDICT = "/predict"
PROTECTED = (PREDICT, "/model", "/metrics")  # behind the key; the page and the probes are not
NAMED_PATHS = (*PROTECTED, "/", "/health", "/ready", "/docs", "/openapi.json")  # by their own names
BODIES = 8  # times the largest body: of all bodies in hand
DRAIN_BYTES, DRAIN_S = 64_000_000, 5.0  # of a refused body that is read and thrown away, so that its sender can listen
NOTHING = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "content-security-policy": NOTHING,
}


class RequestState:
    """One request and its response, watched: bytes in, status out."""

    def __init__(self, service: Service, scope: Scope, receive: Receive, send: Send) -> None:
        self.service, self._receive, self._send = service, receive, send
        self.headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        self.limit = service.settings.max_body
        self.bytes, self.reading, self.complete, self.status = 0, False, False, 0

    async def receive(self) -> Message:
        """The next part of the body, counted.

        Raises:
            ApiError: the body is too large, or the bodies of all requests are.
        """
        message = await self._next()
        length_read = len(message.get("body", b""))
        self.bytes += length_read
        self.service.bytes_in_hand += length_read
        if self.bytes > self.limit:
            raise ApiError("too large", f"a body of more than {self.limit} bytes (serve: max_body_mb)")
        if self.service.bytes_in_hand > BODIES * self.limit:
            raise ApiError("overloaded", "the bodies of the requests in hand are too large together: try again")
        return message

    async def _next(self) -> Message:
        self.reading = True
        message = await self._receive()
        self.complete = message["type"] == "http.disconnect" or not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        """Send, with our headers; before the head of the response the rest of the body is length_read in."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            await self._drain()
            present = {name.lower() for name, _ in message["headers"]}
            added = [(name.encode(), value.encode()) for name, value in HEADERS.items() if name.encode() not in present]
            message = {**message, "headers": [*message["headers"], *added]}
        await self._send(message)

    async def _drain(self) -> None:
        """Without this the connection is reset while the client still sends, and it never sees the reason."""
        if self.complete or (not self.reading and not self._has_body()):
            return
        length_read = 0
        try:
            async with asyncio.timeout(DRAIN_S):
                while not self.complete and length_read < DRAIN_BYTES:
                    length_read += len((await self._next()).get("body", b""))
        except TimeoutError:
            self.complete = True  # read enough

    def _has_body(self) -> bool:
        waits = self.headers.get("expect", "").lower() == "100-continue"  # it sends only when told to
        return not waits and (self.headers.get("content-length", "0") != "0" or "transfer-encoding" in self.headers)

    async def refuse(self, refusal: ApiError) -> None:
        """Send a refusal."""
        body = refusal.body()
        response = {"content-type": "application/json", "content-length": str(len(body)), **refusal.headers}
        headers = [(name.encode(), value.encode()) for name, value in response.items()]
        await self.send({"type": "http.response.start", "status": refusal.status, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})


class ServiceMiddleware:
    """ASGI middleware around the whole app."""

    def __init__(self, app: ASGIApp, service: Service, keys: tuple[bytes, ...]) -> None:
        self.app, self.service, self.keys = app, service, keys

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer or refuse one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, path = time.perf_counter(), scope["path"]
        state = RequestState(self.service, scope, receive, send)
        try:
            if path in PROTECTED and self.keys and not self._has_key(state.headers):
                raise ApiError("no key", "this server asks for a key: Authorization: Bearer KEY, or X-API-Key: KEY")
            if path == PREDICT and scope["method"] == "POST":
                await self._predict(scope, state)
            else:
                await self.app(scope, state.receive, state.send)
        except ApiError as refusal:
            if state.status:
                raise
            await state.refuse(refusal)
        except asyncio.CancelledError:  # the server ends and does not wait longer
            self.service.dropped += 1
            raise
        finally:
            self.service.bytes_in_hand -= state.bytes
            name = path if path in NAMED_PATHS else "other"
            self.service.metrics.requests.labels(name, str(state.status)).inc()
            self.service.metrics.seconds.labels(name).observe(time.perf_counter() - start)

    async def _predict(self, scope: Scope, state: RequestState) -> None:
        """Within the limits on requests in hand, on the body and on time."""
        service, settings = self.service, self.service.settings
        if service.draining:
            raise ApiError("draining", "this server is ending: ask another one")
        if service.in_hand >= settings.max_requests:
            raise ApiError("overloaded", f"{settings.max_requests} requests are in hand (serve: max_requests)")
        length = state.headers.get("content-length", "")
        if length.isascii() and length.isdigit() and int(length) > settings.max_body:
            reason = f"a body of {length} bytes, more than {settings.max_body} (serve: max_body_mb)"
            raise ApiError("too large", reason)
        service.in_hand += 1
        try:
            async with asyncio.timeout(settings.timeout_s):
                await self.app(scope, state.receive, state.send)
        except TimeoutError:
            if state.complete:
                raise ApiError("timed out", f"no answer within {settings.timeout_s:g} s (serve: timeout_s)") from None
            state.complete = True  # it had its time
            raise ApiError("too slow", f"no whole body within {settings.timeout_s:g} s (serve: timeout_s)") from None
        finally:
            service.in_hand -= 1

    def _has_key(self, headers: dict[str, str]) -> bool:
        """Whether the request shows a key; all keys are compared, each in constant time."""
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        key_sent = bearer.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
        matches = [hmac.compare_digest(key_sent.encode("latin-1"), key) for key in self.keys]
        return any(matches)
