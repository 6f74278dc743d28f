"""All stages on tiny made images with several labels, in one process; the exported file, predict and the service."""

import json
import os
from pathlib import Path

import numpy as np
import onnxruntime
import pandas as pd
import pytest
import yaml
from sklearn import metrics as sk
from starlette.testclient import TestClient

from attributed import LABELS, attributed_folder
from stillframe.config.hydra_compose import compose
from stillframe.config.reading import read_params
from stillframe.inference import predict as predicting
from stillframe.inference.onnx_model import OnnxModel
from stillframe.model_metadata import digest_of
from stillframe.serving import mlflow_flavor
from stillframe.serving.app import make_app
from stillframe.serving.service import Service
from stillframe.serving.settings import read
from stillframe.stages import augment, evaluate, export, fetch, preprocess, report, train, validate
from stillframe.store.split import Split

ROOT = Path(__file__).parents[3]
GOLDEN = [0.522708, 0.348739, 0.236425]
OVERRIDES = ["data=multilabel", "augment=none", "model=plain_cnn", "optim.lr=1e-2", "optim.mixup=0.1"]


def run_stages(folder, **changes):
    """The DAG in the working directory: from the table in `folder` to the report."""
    values = compose(OVERRIDES, ROOT / "conf")
    values["task"] = "multilabel"
    values["data"] |= {"path": str(folder), "table": "table.csv", "image_size": 16, "near_duplicates": "off"}
    values["data"] |= {"val_fraction": 0.25, "test_fraction": 0.25, "workers": 1}
    values["data"]["columns"]["slices"] = ["maker"]
    values["trainer"] |= {"max_epochs": 3, "batch_size": 16, "threads": 1, "accelerator": "cpu"}
    values["evaluate"] |= {"bootstrap": 50, "gallery": 4, "explain": 2}
    values["export"] |= {"latency_runs": 3, "bootstrap": 20}
    with open("params.yaml", "w") as file:
        yaml.safe_dump(values, file)
    data, *_ = read_params("data")
    fetch.run(data.fetch, data.path)
    preprocess.run(*read_params("task", "seed", "data"), source=folder)
    augment.run(*read_params("task", "seed", "augment"))
    assert train.run(*read_params("task", "seed", "augment", "model", "optim", "trainer", "tracking")) == 0
    task, section, *sections = read_params("task", "data", "trainer", "validate", "tracking")
    validate.run(task, section.symmetry, *sections)
    evaluate.run(*read_params("task", "seed", "trainer", "evaluate", "tracking"))
    sections = read_params("task", "seed", "data", "augment", "model", "optim", "trainer", "export", "tracking")
    export.run(*sections, source=folder)
    report.run(*read_params("tracking"))


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A folder in which all stages ran, as the working directory."""
    folder, before = tmp_path_factory.mktemp("attributes"), os.getcwd()
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.chdir(folder)
        run_stages(attributed_folder(folder / "source", 160))
        yield folder
    os.chdir(before)


def read_json(path):
    return json.loads(path.read_text())


def test_golden_losses(project):
    """A refactoring must not move these; a deliberate change of the mathematics updates them and says so."""
    losses = pd.read_csv(project / "artifacts/train/history.csv")["train/loss"]
    np.testing.assert_allclose(losses, GOLDEN, rtol=2e-3)


def test_scores_of_the_test_split_are_scikit_learn_s(project):
    table = pd.read_parquet(project / "artifacts/evaluate/predictions.parquet")
    labels, predicted, probability = (
        np.stack(table[name].to_list()) for name in ("labels", "predicted", "probability")
    )
    got = read_json(project / "artifacts/evaluate/metrics.json")
    expected = {
        "f1_macro": sk.f1_score(labels, predicted, average="macro"),
        "f1_micro": sk.f1_score(labels, predicted, average="micro"),
        "subset_accuracy": sk.accuracy_score(labels, predicted),
        "hamming_loss": sk.hamming_loss(labels, predicted),
        "map_macro": sk.average_precision_score(labels, probability, average="macro"),
    }
    assert {name: got[name] for name in expected} == pytest.approx(expected, abs=1e-6)
    thresholds = read_json(project / "artifacts/validate/choices.json")["thresholds"]
    assert len(set(thresholds)) > 1 and (predicted == (probability >= thresholds)).all()
    assert got["f1_macro"] > 0.7, "the channels are learnt in three epochs"
    baseline = read_json(project / "artifacts/evaluate/baseline.json")
    assert baseline["class"] == "red 2" and baseline["f1_macro"] < got["f1_macro"]


def test_the_report_and_its_tables_are_whole(project):
    evaluated = project / "artifacts/evaluate"
    assert set(pd.read_csv(evaluated / "slices.csv")["slice"]) == {"maker", "size", "mode"}
    for table in ("gallery.csv", "explain/explain.csv"):
        rows = pd.read_csv(evaluated / table)
        assert len(rows) and all((evaluated / table).parent.joinpath(file).is_file() for file in rows["file"])
    page = (project / "artifacts/report/report.html").read_text()
    for text in ("macro F1 is", "for every image would have", "mAP", "The weakest label is", "Hamming loss", *LABELS):
        assert text in page, text
    card = (project / "artifacts/report/MODEL_CARD.md").read_text()
    assert "any of 3 labels: blau ü, green, light, red 2" in card


def test_the_exported_file_decides_as_the_model(project):
    variant = read_json(project / "artifacts/export/export.json")["variants"][0]
    assert variant["max_probability_difference"] < 1e-3
    session = onnxruntime.InferenceSession(project / "artifacts/export/model.onnx")
    table, split = (
        pd.read_parquet(project / "artifacts/evaluate/predictions.parquet"),
        Split(project / "data/prepared/test"),
    )
    images = split.images(table["index"].to_numpy())
    probability, decision = session.run(["probability", "decision"], {session.get_inputs()[0].name: images})
    np.testing.assert_allclose(probability, np.stack(table["probability"].to_list()), atol=1e-4)
    assert decision.dtype == np.uint8
    assert (decision == np.stack(table["predicted"].to_list())).mean() > 0.99


def test_predict_and_serve_name_the_labels(project, tmp_path):
    out, model = tmp_path / "table.csv", OnnxModel(project / "artifacts/export/model.onnx", threads=1, spin=False)
    assert model.metadata.thresholds == read_json(project / "artifacts/validate/choices.json")["thresholds"]
    predicting.predict([str(project / "source/images")], model=str(model.path), out=str(out), quiet=True)
    rows = pd.read_csv(out, keep_default_na=False)
    assert list(rows.columns) == ["path", "predicted", "reason", "heat", *(f"probability/{name}" for name in LABELS)]
    truth = pd.read_csv(project / "source/table.csv", keep_default_na=False)["label"]
    assert (rows["predicted"] == truth).mean() > 0.6
    images = [str(project / f"source/images/00{number}.png") for number in range(2)]
    predicting.predict(images, model=str(model.path), out=str(tmp_path / "two.csv"), explain=True, quiet=True)
    explained = pd.read_csv(tmp_path / "two.csv")
    assert all((tmp_path / file).is_file() for file in explained["heat"]), explained
    service = Service(model, read(None, threads=1), digest_of(model.path))
    with TestClient(make_app(service, ()), raise_server_exceptions=False) as client:
        content, kind = (project / "source/images/000.png").read_bytes(), {"content-type": "image/png"}
        (prediction,) = client.post("/predict", content=content, headers=kind).json()["predictions"]
        schema = client.get("/openapi.json").json()["components"]["schemas"]["Prediction"]["properties"]
    assert "|".join(prediction["labels"]) == rows["predicted"][0]
    assert prediction["probabilities"] == pytest.approx(
        {name: rows[f"probability/{name}"][0] for name in LABELS}, abs=1e-5
    )
    assert {"name", "labels", "probabilities", "file", "heat_map"} == set(schema)


@pytest.mark.filterwarnings("ignore")  # MLflow's loaders, on types of their own
def test_mlflow_s_model_has_the_columns_of_its_signature(project, tmp_path):
    from mlflow import pyfunc

    model = pyfunc.load_model(str(mlflow_flavor.write(project / "artifacts/export/model.onnx", tmp_path / "model")))
    image = (project / "source/images/000.png").read_bytes()
    rows = model.predict(pd.DataFrame({"image": [image]}))
    assert list(rows.columns) == ["predicted", *(f"probability/{name}" for name in LABELS)]
    assert rows.columns.tolist() == model.metadata.signature.outputs.input_names()
