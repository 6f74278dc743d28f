"""Figures for Prometheus; a registry of its own for each app."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from stillframe.model_metadata import ModelMetadata

SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
IMAGES = (1, 2, 4, 8, 16, 32, 64)
SHARES = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
TYPE = "text/plain; version=0.0.4; charset=utf-8"


class ServiceMetrics:
    """What a server counts; the label values are bounded, whatever is sent."""

    def __init__(self, metadata: ModelMetadata, digest: str) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call] # a second series for each one, of when it was first counted
        registry = self.registry = CollectorRegistry()
        self.requests = Counter("stillframe_requests", "Requests", ["path", "status"], registry=registry)
        self.seconds = Histogram(
            "stillframe_request_seconds", "Of a request, to its last byte", ["path"], buckets=SECONDS, registry=registry
        )
        self.refused = Counter("stillframe_refused_images", "Images not answered", ["kind"], registry=registry)
        self.answers = Counter("stillframe_answers", "Images answered, by class", ["decision"], registry=registry)
        self.confidence = Histogram(
            "stillframe_confidence", "Probability of the answer", buckets=SHARES, registry=registry
        )
        self.batch = Histogram("stillframe_batch_images", "Of a model call", buckets=IMAGES, registry=registry)
        self.model = Histogram("stillframe_model_seconds", "Of a model call", buckets=SECONDS, registry=registry)
        self.heat = Histogram("stillframe_heat_map_seconds", "Of a heat map", buckets=SECONDS, registry=registry)
        info = Info("stillframe_model", "The model that answers", registry=registry)
        origin = {"net": metadata.net, "variant": metadata.variant, "data": metadata.data, "digest": digest}
        info.info(origin | {"run_id": metadata.run_id or "", "git_commit": metadata.git_commit or ""})
        for name in metadata.classes:
            self.answers.labels(name)
        ProcessCollector(registry=registry)

    def watch(self, name: str, text: str, value: Callable[[], float]) -> None:
        """A gauge whose value is computed when it is read."""
        Gauge(f"stillframe_{name}", text, registry=self.registry).set_function(value)

    def call(self, images: int, seconds: float) -> None:
        """One model call."""
        self.batch.observe(images)
        self.model.observe(seconds)

    def count(self, names: list[str], confidence: float | None) -> None:
        """One prediction: the names of its classes, and its confidence where it has one."""
        for name in names:
            self.answers.labels(name).inc()  # prometheus_client's own word
        if confidence is not None:
            self.confidence.observe(confidence)

    def text(self) -> bytes:
        """All figures."""
        return bytes(generate_latest(self.registry))
