"""A model that answers masks, served: masks as indexed PNG at the images' own size, overlays, MLflow's form."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from starlette.testclient import TestClient

from exported import FACTS
from masked import scene
from stillframe.drawing.encode import encode_image
from stillframe.export.onnx_graph import net_graph, save, with_preprocessing
from stillframe.inference.onnx_model import OnnxModel
from stillframe.inference.predictor import predict_images
from stillframe.model_metadata import digest_of
from stillframe.models.build import NetworkSpec, rebuild
from stillframe.serving import mlflow_flavor
from stillframe.serving.app import make_app
from stillframe.serving.service import Service
from stillframe.serving.settings import read

CLASSES = ["ground", "square", "disc"]
MADE = replace(FACTS, task="segmentation", classes=CLASSES, size=32, channels=3, resize="squash", tta="none")
MADE = replace(MADE, threshold=None, overlap=0.25, net="unet", min_px=4)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> OnnxModel:
    torch.manual_seed(0)
    spec = NetworkSpec("unet", 3, 3, 32, [0.3] * 3, [0.05] * 3, 0.0, 0.0, encoder="test_resnet")
    path = tmp_path_factory.mktemp("masks") / "model.onnx"
    save(with_preprocessing(net_graph(rebuild(spec).eval(), MADE), MADE), path)
    return OnnxModel(path, threads=1, spin=False)


@pytest.fixture(scope="module")
def client(file: OnnxModel) -> Iterator[TestClient]:
    service = Service(file, read(None, threads=1), digest_of(file.path))
    with TestClient(make_app(service, ()), raise_server_exceptions=False) as client:
        yield client


def decoded(text: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(text)))


def test_a_mask_comes_back_at_the_images_own_size(client: TestClient, file: OnnxModel) -> None:
    image = scene(1, width=50, height=41)[0]
    said = client.post(
        "/predict?explain=true", content=encode_image(image), headers={"content-type": "image/png"}
    ).json()
    (one,) = said["predictions"]
    mask, wanted = decoded(one["mask"]), predict_images(file, [image])[0]
    assert mask.mode == "P" and mask.size == (50, 41) and json.loads(mask.text["classes"]) == CLASSES
    np.testing.assert_array_equal(np.asarray(mask), wanted.class_HW)
    assert one["shares"] == pytest.approx(dict(zip(CLASSES, wanted.share_K.tolist(), strict=True)), abs=1e-5)
    assert decoded(one["overlay"]).size == (50, 41) and one["file"]["width"] == 50
    assert said["model"]["net"] == "unet"


def test_one_refused_image_refuses_the_request(client: TestClient) -> None:
    sent = [base64.b64encode(data).decode() for data in (encode_image(scene(1)[0]), b"no image")]
    answer = client.post("/predict", json={"images": sent})
    assert answer.status_code == 422 and [one["index"] for one in answer.json()["images"]] == [1]
    assert client.post("/predict", json={"images": sent[:1]}).json()["predictions"][0]["overlay"] is None
    assert "stillframe_answers_total" in client.get("/metrics").text
    assert "MaskPredictions" in client.get("/openapi.json").text


def test_openapi_says_which_fields_are_images(client: TestClient) -> None:
    """The page draws by that."""
    fields = client.get("/openapi.json").json()["components"]["schemas"]["MaskPrediction"]["properties"]
    assert [name for name in fields if fields[name].get("contentMediaType") == "image/png"] == ["mask", "overlay"]


@pytest.mark.filterwarnings("ignore")  # MLflow's loaders, on types of their own
def test_mlflow_serves_masks(file: OnnxModel, tmp_path: Path) -> None:
    from mlflow import pyfunc

    image = scene(2, width=50, height=41)[0]
    model = pyfunc.load_model(str(mlflow_flavor.write(file.path, tmp_path / "model")))
    row = model.predict(pd.DataFrame({"image": [encode_image(image)]})).iloc[0]
    wanted = predict_images(file, [image])[0]
    with Image.open(io.BytesIO(row["mask"])) as mask:
        np.testing.assert_array_equal(np.asarray(mask), wanted.class_HW)
    assert row["confidence"] == pytest.approx(wanted.confidence, abs=1e-6)
    assert row["share/disc"] == pytest.approx(float(wanted.share_K[2]), abs=1e-6)
