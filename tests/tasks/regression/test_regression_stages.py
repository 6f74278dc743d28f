"""All stages on tiny made images whose brightness is the number, in one process; the exported file and predict."""

import json
import os
from pathlib import Path

import numpy as np
import onnxruntime
import pandas as pd
import pytest
import yaml
from mlflow import pyfunc
from sklearn import metrics as sk
from starlette.testclient import TestClient

from numbered import SECTION, numbered_folder
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
GOLDEN = [0.844615, 0.186066, 0.310614]
OVERRIDES = ["data=numbers", "augment=none", "model=plain_cnn", "optim=regression", "optim.lr=1e-2", "optim.mixup=0.1"]


def run_stages(folder, **changes):
    """The DAG in the working directory: from the table in `folder` to the report."""
    values = compose(OVERRIDES, ROOT / "conf")
    values["task"] = "regression"
    data = {"path": str(folder), "table": "table.csv", "target": SECTION, "image_size": 16, "near_duplicates": "off"}
    values["data"] |= data | {"val_fraction": 0.2, "test_fraction": 0.3, "workers": 1}
    values["data"]["columns"]["slices"] = ["maker"]
    values["trainer"] |= {"max_epochs": 3, "batch_size": 16, "threads": 1, "accelerator": "cpu", "monitor": "mae"}
    values["evaluate"] |= {"bootstrap": 50, "gallery": 4}
    values["export"] |= {"latency_runs": 3, "bootstrap": 20, "bound": {"probability": 0.5, "decisions": 0.0}}
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
    folder, before = tmp_path_factory.mktemp("numbers"), os.getcwd()
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.chdir(folder)
        run_stages(numbered_folder(folder / "source", 120))
        yield folder
    os.chdir(before)


def test_golden_losses(project):
    """A refactoring must not move these; a deliberate change of the mathematics updates them and says so."""
    losses = pd.read_csv(project / "artifacts/train/history.csv")["train/loss"]
    np.testing.assert_allclose(losses, GOLDEN, rtol=2e-3)


def test_scores_of_the_test_split_are_scikit_learn_s(project):
    table = pd.read_parquet(project / "artifacts/evaluate/predictions.parquet")
    target, predicted = (np.stack(table[name].to_list()).astype(np.float64) for name in ("value", "predicted"))
    got = json.loads((project / "artifacts/evaluate/metrics.json").read_text())
    expected = {
        "mae": sk.mean_absolute_error(target, predicted),
        "mse": sk.mean_squared_error(target, predicted),
        "rmse": sk.root_mean_squared_error(target, predicted),
        "r2": sk.r2_score(target, predicted),
    }
    for index, name in enumerate(SECTION["columns"]):
        expected[f"mae/{name}"] = sk.mean_absolute_error(target[:, index], predicted[:, index])
        expected[f"r2/{name}"] = sk.r2_score(target[:, index], predicted[:, index])
    assert {name: got[name] for name in expected} == pytest.approx(expected, abs=1e-6, rel=1e-6)
    baseline = json.loads((project / "artifacts/evaluate/baseline.json").read_text())
    mean = Split(project / "data/prepared/train").target("value", np.arange(60)).mean(0)
    assert baseline["class"] == f"the train mean, {mean[0]:.4g}, {mean[1]:.4g}"
    assert baseline["mae"] == pytest.approx(np.abs(target - mean).mean(), rel=1e-4)
    assert got["r2"] > 0.5, "brightness is learnt in three epochs"


def test_the_report_and_its_tables_are_whole(project):
    evaluated = project / "artifacts/evaluate"
    slices = pd.read_csv(evaluated / "slices.csv")
    assert set(slices["slice"]) == {"maker", "size", "mode"} and (slices["low"] <= slices["mae"]).all()
    gallery = pd.read_csv(evaluated / "gallery.csv")
    assert len(gallery) == 4 and all((evaluated / file).is_file() for file in gallery["file"])
    curves = {path.name for path in (evaluated / "plots/curves").glob("*.csv")}
    titles = ("Predicted against true value, test split", "Error against true value, test split")
    assert {f"{title}.csv" for title in titles} <= curves
    page = (project / "artifacts/report/report.html").read_text()
    for text in (*titles, "mean absolute error is", "the train mean", "R²", "says <b>"):
        assert text in page
    assert "{" not in (project / "artifacts/report/MODEL_CARD.md").read_text().split("```")[0]


def test_the_exported_file_answers_in_the_targets_own_units(project):
    table = json.loads((project / "artifacts/export/export.json").read_text())
    assert table["variants"][0]["max_value_difference"] < 0.01
    session = onnxruntime.InferenceSession(project / "artifacts/export/model.onnx")
    row = pd.read_parquet(project / "artifacts/evaluate/predictions.parquet").iloc[0]
    split = Split(project / "data/prepared/test")
    (value,) = session.run(["value"], {session.get_inputs()[0].name: split.images([int(row["index"])])})
    assert value[0] == pytest.approx(row["predicted"], rel=1e-4)
    assert value[0][1] > 700, "the second number lies around 900"


@pytest.mark.filterwarnings("ignore")  # MLflow's loaders, on types of their own
def test_predict_and_serve_name_numbers_and_units(project, tmp_path):
    out, model = tmp_path / "table.csv", OnnxModel(project / "artifacts/export/model.onnx", threads=1, spin=False)
    predicting.predict([str(project / "source/images")], model=str(model.path), out=str(out), quiet=True)
    rows = pd.read_csv(out)
    assert list(rows.columns) == ["path", "value/light [cd]", "value/dark", "reason"] and len(rows) == 120
    service = Service(model, read(None, threads=1), digest_of(model.path))
    with TestClient(make_app(service, ()), raise_server_exceptions=False) as client:
        content, kind = (project / "source/images/000.png").read_bytes(), {"content-type": "image/png"}
        (prediction,) = client.post("/predict", content=content, headers=kind).json()["predictions"]
        schema = client.get("/openapi.json").json()["components"]["schemas"]
    light = prediction["values"]["light"]
    assert light == {"value": pytest.approx(rows["value/light [cd]"][0], rel=1e-5), "unit": "cd"}
    assert set(schema["Value"]["properties"]) == {"value", "unit"}
    served = pyfunc.load_model(str(mlflow_flavor.write(model.path, tmp_path / "model")))
    row = served.predict(pd.DataFrame({"image": [content]})).iloc[0]
    assert row["value/light [cd]"] == pytest.approx(light["value"], rel=1e-5)
