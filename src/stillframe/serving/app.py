"""The routes: predictions, what the model is, probes, figures, and two pages that load nothing from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse, Response
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, Field, create_model
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp

from stillframe import __version__
from stillframe.serving import requests
from stillframe.serving.errors import STATUS, ApiError
from stillframe.serving.middleware import ServiceMiddleware
from stillframe.serving.prometheus import TYPE
from stillframe.serving.service import Service

PAGE = Path(__file__).parent / "page"
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; media-src blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class Origin(BaseModel):
    """Which model predicted."""

    net: str
    variant: str
    digest: str = Field(description="sha256 of the file")
    run_id: str | None = Field(description="of the MLflow run")
    git_commit: str | None
    data_hash: str


class InvalidImageResponse(BaseModel):
    """Why an image is not answered."""

    index: int
    name: str
    reason: str = Field(examples=["damaged: OSError: image file is truncated"])


class ErrorResponse(BaseModel):
    """Why a request is not answered."""

    error: str = Field(examples=sorted(STATUS))
    reason: str
    images: list[InvalidImageResponse] | None = None


BINARY = {"type": "string", "format": "binary"}
NAMED_IMAGE = {
    "type": "object",
    "required": ["data"],
    "properties": {"name": {"type": "string"}, "data": {"type": "string"}},
}
BODY = {
    "multipart/form-data": {
        "schema": {"type": "object", "properties": {"images": {"type": "array", "items": BINARY}}},
    },
    "application/json": {
        "schema": {
            "type": "object",
            "required": ["images"],
            "properties": {"images": {"type": "array", "items": {"anyOf": [{"type": "string"}, NAMED_IMAGE]}}},
        },
    },
    "image/*": {"schema": BINARY},
    "video/*": {"schema": BINARY},
}
ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorResponse} for status in sorted(set(STATUS.values()) - {404, 405})
}


def make_app(service: Service, keys: tuple[bytes, ...]) -> ASGIApp:
    """The app of a service, behind its middleware."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await service.start()
        yield
        await service.stop()

    metadata = service.metadata
    about = f"{metadata.net} on {metadata.data}: {', '.join(metadata.classes[:20])}"
    app = FastAPI(
        title="stillframe", summary=about, version=__version__, docs_url=None, redoc_url=None, lifespan=lifespan
    )
    _predictions(app, service)
    _probes(app, service)
    _pages(app)
    _errors(app)
    if keys:
        _lock(app)
    return ServiceMiddleware(app, service, keys)


def _predictions(app: FastAPI, service: Service) -> None:
    max_images = service.settings.max_images

    @app.post(
        "/predict",
        tags=["answers"],
        response_model=_response_model(service.task.output.schema),
        responses=ERRORS,
        openapi_extra={"requestBody": {"required": True, "content": BODY}},
    )
    async def predict(request: Request, explain: bool = Query(default=False, description="heat maps, overlays")) -> Any:
        """Predictions for one or several images; one refused: none answered.

        A model of clips takes videos in their place.
        """
        content = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if content == "multipart/form-data":
            files = await requests.multipart(request, max_images)
        elif content == "application/json":
            files = await service.in_reader(requests.of_json, await request.body(), max_images)
        elif content.startswith(("image/", "video/")) or content == "application/octet-stream":
            files = [requests.UploadedFile("body", await request.body())]
        else:
            raise ApiError("wrong type", f"content-type {content[:80]!r}: one of {requests.TYPES} is expected")
        return await service.predict(files, explain=explain)

    @app.get("/model", tags=["answers"])
    async def model() -> dict[str, Any]:
        """Everything the model says of itself, and this server's limits."""
        return service.description


def _response_model(prediction: type[BaseModel]) -> type[BaseModel]:
    """The response of /predict for the task's model of one prediction; FastAPI holds every response against it."""
    doc = "Predictions in the order of the images."
    fields: dict[str, Any] = {"predictions": (list[prediction], ...), "model": (Origin, ...)}  # type: ignore[valid-type]
    return create_model(f"{prediction.__name__}s", __doc__=doc, **fields)


def _probes(app: FastAPI, service: Service) -> None:
    @app.get("/health", tags=["running it"])
    async def health() -> dict[str, str]:
        """Whether the process lives."""
        return {"status": "alive"}

    @app.get("/ready", tags=["running it"], responses={503: {"model": ErrorResponse}})
    async def ready() -> dict[str, str]:
        """Whether it takes requests: the model is loaded and warm, and the server is not ending."""
        if service.draining or not service.ready:
            raise ApiError("draining", "this server is ending" if service.draining else "the model is being loaded")
        return {"status": "ready"}

    text: dict[int | str, dict[str, Any]] = {200: {"content": {"text/plain": {}}}}

    @app.get("/metrics", tags=["running it"], response_class=Response, responses=text)
    async def metrics() -> Response:
        """Figures for Prometheus."""
        return Response(service.metrics.text(), media_type=TYPE)


def _pages(app: FastAPI) -> None:
    @app.get("/", include_in_schema=False)
    async def page() -> HTMLResponse:
        text = (PAGE / "serve.html").read_text(encoding="utf-8")
        return HTMLResponse(text, headers={"content-security-policy": PAGE_POLICY})

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        folder = "static/docs/"
        page = get_swagger_ui_html(
            openapi_url="openapi.json",
            title="stillframe",
            swagger_js_url=f"{folder}swagger-ui-bundle.js",
            swagger_css_url=f"{folder}swagger-ui.css",
            swagger_favicon_url="static/icon.svg",
            swagger_ui_parameters={"defaultModelsExpandDepth": 0},
        )
        text = bytes(page.body).decode()
        return HTMLResponse(text, headers={"content-security-policy": _docs_policy(text)})

    spec = find_spec("fastapi_offline")  # Swagger UI's own files, in a package; its app is not used
    assert spec is not None and spec.submodule_search_locations is not None
    app.mount("/static/docs", StaticFiles(directory=Path(spec.submodule_search_locations[0]) / "static"))
    app.mount("/static", StaticFiles(directory=PAGE))


def _docs_policy(page: str) -> str:
    """Swagger UI begins with an inline script, allowed by its hash, and styles its elements inline."""
    inline = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" for script in inline
    )
    own = PAGE_POLICY.replace("script-src 'self'", f"script-src 'self' {hashes}")
    return own.replace("style-src 'self'", "style-src 'self' 'unsafe-inline'")


def _errors(app: FastAPI) -> None:
    """Every error as JSON of one form."""

    @app.exception_handler(ApiError)
    async def rejected(request: Request, fault: ApiError) -> Response:
        return Response(fault.body(), fault.status, fault.headers, "application/json")

    @app.exception_handler(HTTPException)
    async def by_the_framework(request: Request, fault: HTTPException) -> Response:
        code = {404: "not found", 405: "wrong method"}.get(fault.status_code, "bad request")
        refusal = ApiError(code, f"{request.method} {request.url.path[:200]}: {fault.detail} (see /docs)")
        allowed = {"allow": fault.headers["Allow"]} if fault.headers and "Allow" in fault.headers else {}
        return Response(refusal.body(), fault.status_code, {**refusal.headers, **allowed}, "application/json")

    @app.exception_handler(RequestValidationError)
    async def wrong_query(request: Request, fault: RequestValidationError) -> Response:
        first = fault.errors()[0]
        where = ".".join(map(str, first["loc"]))
        refusal = ApiError("bad request", f"{where} = {str(first.get('input'))[:80]!r}: {first['msg']}")
        return Response(refusal.body(), refusal.status, media_type="application/json")

    @app.exception_handler(ClientDisconnect)
    async def gone(request: Request, fault: ClientDisconnect) -> Response:
        return Response(status_code=499)  # nobody hears it; the figures do

    @app.exception_handler(Exception)
    async def failed(request: Request, fault: Exception) -> Response:
        refusal = ApiError("failed", "a fault of the server's: its log has it")
        return Response(refusal.body(), refusal.status, media_type="application/json")


def _lock(app: FastAPI) -> None:
    """Tell OpenAPI, and with it the button of /docs, of the key."""
    schema = app.openapi()
    schema.setdefault("components", {})["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    schema["security"] = [{"key": []}]
