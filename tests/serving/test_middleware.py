"""Keys, clocks, figures, pages, and faults of the server's own."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from apps import Made, Serving
from sending import form, png
from starlette.testclient import TestClient

from stillframe.inference.onnx_model import OnnxModel
from stillframe.serving import settings

KEYS = (b"first key", "zweiter schlüssel".encode())


class Changed:
    """A model whose calls can be held up or fail."""

    def __init__(self, made: Made, broken: bool = False) -> None:
        self.inner, self.broken = OnnxModel(made.file, threads=1), broken
        self.metadata, self.free = self.inner.metadata, threading.Event()
        self.free.set()

    def run(self, image_NHWC: Any) -> dict[str, Any]:
        self.free.wait(20)
        if self.broken:
            raise RuntimeError("broken")
        return self.inner.run(image_NHWC)


def test_with_a_key_only_the_page_and_the_probes_are_open(serving: Serving) -> None:
    client = serving(keys=KEYS).client
    for path in ("/health", "/ready", "/", "/docs", "/openapi.json", "/static/serve.js"):
        assert client.get(path).status_code == 200, path
    for said in (client.get("/model"), client.get("/metrics"), client.post("/predict", files=form(png()))):
        assert said.status_code == 401 and said.json()["error"] == "no key"
        assert said.headers["www-authenticate"].startswith("Bearer")
    wrong = [{"authorization": "Bearer"}, {"authorization": "Bearer first"}, {"x-api-key": "first key "[:-2]}]
    wrong += [{"authorization": b"Bearer \xff\xfe"}, {"authorization": "Basic first key"}]
    for headers in wrong:
        assert client.get("/model", headers=headers).status_code == 401, headers
    right = [{"authorization": "bearer first key"}, {"x-api-key": "first key"}, {b"x-api-key": KEYS[1]}]
    for headers in right:
        assert client.get("/model", headers=headers).status_code == 200, headers
        assert client.post("/predict", files=form(png()), headers=headers).status_code == 200
    assert client.get("/openapi.json").json()["security"] == [{"key": []}]


def test_keys_come_from_the_environment_and_an_empty_one_is_no_open_door() -> None:
    assert settings.keys(None) == ()
    assert settings.keys(" one, two ,") == (b"one", b"two")
    for text in ("", " ", ","):
        with pytest.raises(ValueError, match="STILLFRAME_API_KEY is set and holds no key"):
            settings.keys(text)


def test_settings_are_strict(tmp_path: Path) -> None:
    file = tmp_path / "serve.yaml"
    file.write_text("batch: 4\nport: 80\n", encoding="utf-8")
    found = settings.read(file, port=9000, host=None)
    assert (found.batch, found.port, found.host, found.max_body) == (4, 9000, "127.0.0.1", 32_000_000)
    for text, words in (
        ("bacth: 4", "serve.bacth = 4: did you mean 'batch'"),
        ("batch: 0", "serve.batch"),
        ("batch: many", "serve.batch"),
        ("[]", "keys and values"),
        ("{", "not plain YAML"),
    ):
        file.write_text(text, encoding="utf-8")
        with pytest.raises(ValueError, match=re.escape(words)):
            settings.read(file)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        settings.read(tmp_path / "nowhere")


def test_an_answer_that_takes_too_long_is_a_504_and_the_next_one_is_answered(serving: Serving, made: Made) -> None:
    model = Changed(made)
    served = serving(model, timeout_s=0.3)
    model.free.clear()
    said = served.client.post("/predict", files=form(png()))
    assert said.status_code == 504 and said.json()["error"] == "timed out" and said.headers["retry-after"] == "5"
    model.free.set()
    assert served.client.post("/predict", files=form(png())).status_code == 200
    assert served.service.in_hand == served.service.bytes_in_hand == served.service.batcher.waiting == 0


def test_a_model_that_fails_is_a_500_without_its_words(
    serving: Serving, made: Made, caplog: pytest.LogCaptureFixture
) -> None:
    model = Changed(made)
    served = serving(model)
    model.broken = True
    said = served.client.post("/predict", files=form(png()))
    assert said.status_code == 500 and said.json() == {
        "error": "failed",
        "reason": "a fault of the server's: its log has it",
    }
    assert served.client.get("/health").status_code == 200
    model.broken = False
    assert served.client.post("/predict", files=form(png())).status_code == 200


def test_while_it_ends_predictions_are_refused_and_it_is_not_ready(serving: Serving) -> None:
    served = serving()
    served.service.draining = True
    said = served.client.post("/predict", files=form(png()))
    assert said.status_code == 503 and said.json()["error"] == "draining" and said.headers["retry-after"] == "5"
    assert served.client.get("/ready").status_code == 503
    assert served.client.get("/health").status_code == 200


def test_the_figures_count_what_was_asked(serving: Serving) -> None:
    served = serving()
    client = served.client
    decided = [client.post("/predict", files=form(png(at))).json()["predictions"][0]["decision"] for at in range(3)]
    client.post("/predict", files=form(b""))
    for at in range(3):
        client.get(f"/nothing/{at}")
    text = client.get("/metrics").text
    figures = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert figures['stillframe_requests_total{path="/predict",status="200"}'] == "3.0"
    assert figures['stillframe_requests_total{path="/predict",status="422"}'] == "1.0"
    assert figures['stillframe_requests_total{path="other",status="404"}'] == "3.0"
    assert figures['stillframe_refused_images_total{kind="empty file"}'] == "1.0"
    for name in served.service.metadata.classes:
        assert figures[f'stillframe_answers_total{{decision="{name}"}}'] == f"{decided.count(name)}.0"
    assert figures["stillframe_batch_images_sum"] == figures["stillframe_confidence_count"] == "3.0"
    assert figures["stillframe_requests_in_hand"] == figures["stillframe_waiting_images"] == "0.0"
    assert 'run_id="r1"' in text and float(figures["process_resident_memory_bytes"]) > 1e6


def test_the_pages_load_nothing_from_elsewhere(client: TestClient) -> None:
    for path in ("/", "/docs"):
        said = client.get(path)
        policy = said.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'") and "http" not in policy
        assert said.headers["x-content-type-options"] == "nosniff"
        used = re.findall(r'(?:src|href)="([^"]+)"', said.text)
        assert len(used) >= 3 and not any(one.startswith(("http", "//", "/")) for one in used)
        for one in set(used) - {"docs"}:
            assert client.get(f"/{one}").status_code == 200, one
    script = client.get("/static/serve.js").text
    assert "innerHTML" not in script and "http" not in script
    assert "'unsafe-inline'" not in client.get("/").headers["content-security-policy"]


def test_answers_are_what_openapi_says(client: TestClient) -> None:
    schemas = client.get("/openapi.json").json()["components"]["schemas"]
    said = client.post("/predict?explain=true", files=form(png())).json()
    assert set(said) == set(schemas["Predictions"]["properties"])
    (one,) = said["predictions"]
    assert set(one) == set(schemas["Prediction"]["properties"]) and set(one["file"]) == set(
        schemas["ImageFile"]["properties"]
    )
    assert set(one["heat_map"]) == set(schemas["HeatMap"]["properties"])
    assert set(said["model"]) == set(schemas["Origin"]["properties"])
    refused = client.post("/predict", files=form(b"")).json()
    assert set(refused) == set(schemas["ErrorResponse"]["properties"])


def test_clients_at_once_share_model_calls(serving: Serving, made: Made) -> None:
    """While one call is held up eight requests arrive; they are answered by one call of eight."""
    model = Changed(made)
    served = serving(model, batch=8)
    images = [png(at, width=20 + at) for at in range(9)]
    alone = [served.client.post("/predict", files=form(one)).json()["predictions"] for one in images]
    calls: list[int] = []
    served.service.batcher.observe = lambda count, seconds: calls.append(count)
    model.free.clear()
    found: dict[int, Any] = {}

    def ask(at: int) -> None:
        found[at] = served.client.post("/predict", files=form(images[at])).json()["predictions"]

    threads = [threading.Thread(target=ask, args=(at,)) for at in range(9)]
    threads[0].start()
    until(lambda: served.service.in_hand == 1 and served.service.batcher.waiting == 0)
    for thread in threads[1:]:
        thread.start()
    until(lambda: served.service.batcher.waiting == 8)
    model.free.set()
    for thread in threads:
        thread.join()
    assert sorted(calls) == [1, 8]
    for at in range(9):
        mine, own = found[at][0], alone[at][0]
        assert mine["decision"] == own["decision"]
        assert list(mine["probabilities"].values()) == pytest.approx(list(own["probabilities"].values()), abs=1e-5)


def until(true: Any) -> None:
    """Wait; an assertion fails after 20 s."""
    last = time.monotonic() + 20
    while not true():
        assert time.monotonic() < last
        time.sleep(0.005)


def test_an_exported_file_is_served_without_torch() -> None:
    program = (
        "import sys\n"
        "from stillframe.serving import run\n"
        "from stillframe.inference import heatmaps\n"
        "heavy = {'torch', 'pytorch_lightning', 'mlflow', 'pandas', 'datasets'} & set(sys.modules)\n"
        "sys.exit(str(sorted(heavy)) if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_facts_of_the_class_names_are_escaped_in_figures(serving: Serving, made: Made) -> None:
    model = Changed(made)
    model.metadata = replace(made.facts, classes=['a "quoted"\nname', "b\\"])
    text = serving(model).client.get("/metrics").text
    assert 'decision="a \\"quoted\\"\\nname"' in text and 'decision="b\\\\"' in text
