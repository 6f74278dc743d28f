"""The model that MLflow serves: no pickle in it, nothing of stillframe beside it needed, the file's own answers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import yaml
from apps import Made
from sending import bomb, png, text

import reels
from exported import predicted
from stillframe.inference.onnx_model import OnnxModel
from stillframe.ingest.decode import decode
from stillframe.serving import mlflow_flavor

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow's loaders, on types of their own

CHECK = """
import json, sys
import pandas as pd
from mlflow import pyfunc
from mlflow.exceptions import MlflowException
model = pyfunc.load_model(sys.argv[1])
images = [bytes.fromhex(line) for line in sys.stdin.read().split()]
import stillframe_served.ingest.decode as used
assert used.__file__.startswith(sys.argv[1]), used.__file__
assert not {"torch", "stillframe"} & set(sys.modules)
print(model.predict(pd.DataFrame({"image": images[:-1]})).to_json())
try:
    model.predict(pd.DataFrame({"image": images}))
except MlflowException as error:
    print(json.dumps([error.error_code, str(error)]))
"""


@pytest.fixture(scope="module")
def folder(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Path:
    before = list(sys.path)
    found = mlflow_flavor.write(made.file, tmp_path_factory.mktemp("mlflow") / "model")
    assert sys.path == before and mlflow_flavor.SERVED not in sys.modules
    return found


@pytest.fixture(autouse=True)
def imports(monkeypatch: pytest.MonkeyPatch) -> None:
    """What loading a model adds to sys.path goes with the test."""
    monkeypatch.setattr(sys, "path", list(sys.path))


def test_it_is_whole_and_holds_no_pickle(folder: Path, made: Made) -> None:
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert {"MLmodel", "mlflow_model.py", "artifacts/model.onnx", "requirements.txt"} <= files
    code = {path.relative_to(mlflow_flavor.HOME).as_posix() for path in mlflow_flavor.code_of(made.facts)}
    carried = {path for path in files if path.startswith("code/")}
    assert {path for path in carried if not path.endswith("/__init__.py")} == {
        f"code/stillframe_served/{name}" for name in code if not name.endswith("/__init__.py")
    }
    assert "tasks/classification/output.py" in code and not [name for name in code if "segmentation" in name]
    assert not [path for path in files if path.endswith((".pkl", ".pickle", ".pt", ".pth", ".joblib"))]
    for path in files:
        assert not (folder / path).read_bytes().startswith(b"\x80"), f"{path} begins as pickles do"
    said = yaml.safe_load((folder / "MLmodel").read_text(encoding="utf-8"))
    assert json.loads(said["signature"]["inputs"]) == [{"type": "binary", "name": "image", "required": True}]
    names = [column["name"] for column in json.loads(said["signature"]["outputs"])]
    assert names == ["decision", "probability", "probability/cat", "probability/dog ü"]
    assert said["metadata"]["stillframe"]["stillframe.run_id"] == '"r1"'
    example = json.loads((folder / "serving_input_example.json").read_text(encoding="utf-8"))
    assert example["dataframe_split"]["columns"] == ["image"]


def test_another_process_loads_it_and_answers_as_the_file_does(folder: Path, made: Made, tmp_path: Path) -> None:
    images = [png(at, width=20 + at) for at in range(3)]
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", CHECK, str(folder)],
        input="\n".join(one.hex() for one in (*images, bomb())),
        cwd=tmp_path,
        env={**env, "MLFLOW_DISABLE_TELEMETRY": "true", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.strip().splitlines()
    said = pd.DataFrame(json.loads(first))
    expected = predicted(OnnxModel(made.file, threads=1), [decode(one).image for one in images])
    assert said[["probability/cat", "probability/dog ü"]].to_numpy() == pytest.approx(expected.probability_NK, abs=2e-3)
    assert list(said["decision"]) == [made.facts.classes[at] for at in expected.decision_N]
    code, reason = json.loads(second)
    assert code == "INVALID_PARAMETER_VALUE" and reason.startswith("image 3: too large: ")


def test_the_scoring_server_takes_base64_and_says_what_is_wrong(
    folder: Path, made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The app of `mlflow models serve`, in this process."""
    monkeypatch.setenv("_MLFLOW_IS_IN_SERVING_ENVIRONMENT", "true")  # which `init` sets for good
    from mlflow.pyfunc import load_model
    from mlflow.pyfunc.scoring_server import init
    from starlette.testclient import TestClient

    client = TestClient(init(load_model(str(folder))))
    said = client.post("/invocations", json={"dataframe_records": [{"image": text(png(2))}]})
    assert said.status_code == 200, said.text
    (row,) = said.json()["predictions"]
    expected = predicted(OnnxModel(made.file, threads=1), [decode(png(2)).image])
    at = int(expected.decision_N[0])
    assert row["decision"] == made.facts.classes[at]
    assert row["probability"] == pytest.approx(float(expected.probability_NK[0, at]), abs=2e-3)
    refused = client.post("/invocations", json={"dataframe_records": [{"image": text(b"<html>")}]})
    assert refused.status_code == 400 and "image 0: not an image" in refused.text


def test_it_goes_onto_a_run_once_and_is_served_from_the_registry(made: Made, tmp_path: Path) -> None:
    import mlflow
    from mlflow import MlflowClient

    uri = f"sqlite:///{tmp_path}/mlflow.db"
    client = MlflowClient(uri)
    place = client.create_experiment("e", artifact_location=(tmp_path / "artifacts").as_uri())
    run = client.create_run(place).info
    where = mlflow_flavor.log(client, run.run_id, made.file)
    written = tmp_path / "artifacts" / run.run_id / "artifacts" / where / "MLmodel"
    before = written.stat().st_mtime_ns
    assert mlflow_flavor.log(client, run.run_id, made.file) == where and written.stat().st_mtime_ns == before
    client.create_registered_model("cats")
    client.create_model_version("cats", f"{run.artifact_uri}/{where}", run.run_id)
    known = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(uri)
    try:
        model = mlflow.pyfunc.load_model("models:/cats/1")
        assert model.predict(pd.DataFrame({"image": [png()]}))["decision"][0] in made.facts.classes
    finally:
        mlflow.set_tracking_uri(known)


def test_a_model_of_clips_takes_videos(tmp_path: Path) -> None:
    from mlflow.exceptions import MlflowException
    from mlflow.pyfunc import load_model

    facts = replace(reels.FACTS, views=2)
    folder = mlflow_flavor.write(reels.write_file(tmp_path / "model.onnx", facts), tmp_path / "model")
    said = yaml.safe_load((folder / "MLmodel").read_text(encoding="utf-8"))
    assert json.loads(said["signature"]["inputs"])[0]["name"] == "video"
    assert any(line.startswith("av==") for line in (folder / "requirements.txt").read_text().splitlines())
    model, levels = load_model(str(folder)), {"dark": 51, "bright": 204}
    videos = [reels.film(tmp_path / f"{name}.mp4", [level] * 16).read_bytes() for name, level in levels.items()]
    answers = model.predict(pd.DataFrame({"video": videos}))
    assert list(answers["decision"]) == ["dark", "bright"] and answers["probability"][1] == pytest.approx(0.8, abs=0.03)
    with pytest.raises(MlflowException, match="video 1: not a video"):
        model.predict(pd.DataFrame({"video": [videos[0], b"<html>"]}))


def test_a_folder_that_is_there_is_left_alone(made: Made, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is there already"):
        mlflow_flavor.write(made.file, tmp_path)
