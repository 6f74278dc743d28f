"""What the server answers, and what it refuses: always JSON with a reason, and the next request is answered."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import pytest
from apps import SIDE, Made, Serving
from PIL import Image
from sending import bomb, encoded, form, png, text
from starlette.testclient import TestClient

from exported import predicted
from stillframe.inference.onnx_model import OnnxModel
from stillframe.ingest.decode import decode
from tiny import picture

SIZES = [(30, 20), (7, 90), (16, 16), (64, 64)]
TURNED = Image.Exif()
TURNED[0x0112] = 6
GOOD = {
    "png": png(3),
    "jpeg, turned by EXIF": encoded(picture(4, width=40), "JPEG", exif=TURNED),
    "gray": encoded(picture(5, channels=1)),
    "cmyk": encoded(Image.fromarray(picture(6)).convert("CMYK"), "JPEG"),
    "16 bit": encoded(Image.fromarray(picture(7, channels=1).astype(np.uint16) * 257)),
    "palette with transparency": encoded(Image.fromarray(picture(8)).convert("P"), transparency=0),
    "animation": encoded(
        Image.fromarray(picture(9)), "GIF", save_all=True, append_images=[Image.fromarray(picture(10))]
    ),
}
PART = b"--x\r\nContent-Disposition: form-data"
BAD = {
    "empty": (b"", 422, "empty file"),
    "text": (b"<html>no</html>", 422, "not an image"),
    "truncated": (png(1)[:200], 422, "damaged"),
    "flipped bits": (png(1)[:90] + bytes([png(1)[90] ^ 255]) + png(1)[91:], 422, "damaged"),
    "bomb": (bomb(), 413, "too large"),
    "absurd header": (bomb(2**31 - 1, 2**31 - 1), 413, "too large"),
    "small": (png(1, width=3, height=30), 422, "too small"),
    "float": (encoded(Image.fromarray(np.ones((20, 20), np.float32)), "TIFF"), 422, "mode F"),
    "svg": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', 422, "not an image"),
}


def asked(client: TestClient, content: bytes) -> Any:
    """About one image, by a form."""
    return client.post("/predict", files=form(content))


def test_the_answer_is_that_of_the_file_by_the_frozen_threshold(client: TestClient, made: Made) -> None:
    images = [png(at, width=width, height=height) for at, (width, height) in enumerate(SIZES)]
    said = client.post("/predict", files=form(*images)).json()
    expected = predicted(OnnxModel(made.file, threads=1), [decode(one).image for one in images])
    assert [one["name"] for one in said["predictions"]] == ["0.png", "1.png", "2.png", "3.png"]
    for at, one in enumerate(said["predictions"]):
        assert list(one["probabilities"]) == ["cat", "dog ü"]
        assert list(one["probabilities"].values()) == pytest.approx(expected.probability_NK[at], abs=2e-3)
        assert one["index"] == expected.decision_N[at] == int(one["probabilities"]["dog ü"] >= 0.4)
        assert one["probability"] == one["probabilities"][one["decision"]] and one["heat_map"] is None
        assert (one["file"]["width"], one["file"]["height"]) == SIZES[at]
    assert said["model"]["run_id"] == "r1" and said["model"]["git_commit"] == "c1"
    assert said["model"]["digest"].startswith("sha256:") and len(said["model"]["digest"]) == 71


@pytest.mark.parametrize("name", GOOD)
def test_every_mode_that_preprocessing_takes_is_answered(client: TestClient, made: Made, name: str) -> None:
    said = asked(client, GOOD[name])
    assert said.status_code == 200, said.text
    expected = predicted(OnnxModel(made.file, threads=1), [decode(GOOD[name]).image]).probability_NK[0]
    assert list(said.json()["predictions"][0]["probabilities"].values()) == pytest.approx(expected, abs=2e-3)
    assert said.json()["predictions"][0]["file"]["frames"] == (2 if name == "animation" else 1)


def test_the_three_ways_to_send_agree(client: TestClient) -> None:
    image = png(2)
    ways = [
        asked(client, image),
        client.post("/predict", json={"images": [text(image)]}),
        client.post("/predict", json={"images": [{"name": "a.png", "data": f"data:image/png;base64,{text(image)}"}]}),
        client.post("/predict", content=image, headers={"content-type": "image/png"}),
        client.post("/predict", content=image, headers={"content-type": "application/octet-stream"}),
    ]
    answers = [way.json()["predictions"][0] for way in ways]
    assert [one.pop("name") for one in answers] == ["0.png", "images[0]", "a.png", "body", "body"]
    assert all(one == answers[0] for one in answers)


@pytest.mark.parametrize("name", BAD)
def test_a_bad_image_is_refused_with_its_reason(client: TestClient, name: str) -> None:
    content, status, reason = BAD[name]
    raw = {"content": content, "headers": {"content-type": "image/png"}}
    for said in (asked(client, content), client.post("/predict", **raw)):
        assert said.status_code == status, said.text
        assert reason in said.json()["reason"] and said.json()["images"][0]["index"] == 0
    assert asked(client, png()).status_code == 200


def test_one_bad_image_of_several_is_named_and_none_is_answered(client: TestClient) -> None:
    said = client.post("/predict", files=form(png(0), b"no", png(1), b""))
    assert said.status_code == 422 and "2 of 4 images refused, none answered" in said.json()["reason"]
    assert [(one["index"], one["name"]) for one in said.json()["images"]] == [(1, "1.png"), (3, "3.png")]
    assert said.json()["images"][1]["reason"] == "empty file: 0 bytes"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "not of the form"),
        (b'{"images": "aGFsbG8="}', "not of the form"),
        (b'{"images": [], "url": "x"}', "not of the form"),
        (b'{"images": []}', "no image was sent"),
        (b'{"images": [3]}', "images[0] is int"),
        (b'{"images": [{"name": "a"}]}', "images[0] is not of the form"),
        (b'{"images": [{"data": null}]}', "images[0] is NoneType"),
        (b'{"images": ["%%%"]}', "images[0] is not base64"),
        (b'{"images": ["aGFsbG8"]}', "images[0] is not base64"),
        (b'{"images": ["http://localhost/a.png"]}', "nothing is fetched"),
        (b'{"images": ["data:image/png,aa"]}', "without ;base64"),
    ],
)
def test_wrong_json_is_a_bad_request(client: TestClient, body: bytes, reason: str) -> None:
    said = client.post("/predict", content=body, headers={"content-type": "application/json"})
    assert said.status_code == 400 and said.json()["error"] == "bad request", said.text
    assert reason in said.json()["reason"]


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("multipart/form-data", b"no boundary"),
        ("multipart/form-data; boundary=x", b""),
        ("multipart/form-data; boundary=x", b"--y\r\n\r\nno\r\n--y--"),
        ("multipart/form-data; boundary=x", b"--x\r\n\r\nno disposition\r\n--x--\r\n"),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\nfield\r\n--x--\r\n',
        ),
        ("multipart/form-data; boundary=x", b'--x\r\nContent-Disposition: form-data; filename="a"\r\n\r\nno name'),
        ("multipart/form-data; boundary=\xff\xfe", b"--x"),
    ],
)
def test_a_wrong_form_is_a_bad_request(client: TestClient, kind: str, body: bytes) -> None:
    said = client.post("/predict", content=body, headers={"content-type": kind.encode("latin-1")})
    assert said.status_code == 400 and said.json()["error"] == "bad request" and said.json()["reason"], said.text


def test_other_types_paths_and_methods_are_refused_in_json(client: TestClient) -> None:
    said = client.post("/predict", content=b"a=b", headers={"content-type": "application/x-www-form-urlencoded"})
    assert said.status_code == 415 and "multipart/form-data" in said.json()["reason"]
    assert client.post("/predict", content=png()).status_code == 415
    said = client.get("/predict")
    assert said.status_code == 405 and said.headers["allow"] == "POST" and said.json()["error"] == "wrong method"
    assert client.get("/nothing").json()["error"] == "not found"
    assert client.get("/static/../app.py").status_code == 404
    said = client.post("/predict?explain=perhaps", files=form(png()))
    assert said.status_code == 400 and "explain" in said.json()["reason"]


def test_the_limits_are_said_and_hold(serving: Serving) -> None:
    served = serving(max_images=2, max_body_mb=0.02, max_megapixels=0.001, max_explained=1)
    client = served.client
    limits = client.get("/model").json()["limits"]
    assert (limits["max_images"], limits["max_body_mb"], limits["max_megapixels"]) == (2, 0.02, 0.001)
    for said in (
        client.post("/predict", files=form(png(0), png(1), png(2))),
        client.post("/predict", json={"images": [text(png(at)) for at in range(3)]}),
        client.post("/predict", content=bytes(30_000), headers={"content-type": "image/png"}),
        client.post("/predict", content=iter([bytes(15_000)] * 2), headers={"content-type": "image/png"}),
        client.post("/predict", content=bytes(10), headers={"content-type": "image/png", "content-length": "9" * 30}),
        client.post("/predict", files=form(png(0, width=40, height=40))),
        client.post("/predict?explain=true", files=form(png(0), png(1))),
    ):
        assert said.status_code == 413 and said.json()["error"] == "too large", said.text
    assert asked(client, png()).status_code == 200
    assert served.service.in_hand == served.service.bytes_in_hand == 0


@pytest.mark.parametrize("form_of_model", ["file", "net"])
def test_a_heat_map_is_a_picture_of_the_nets_size(serving: Serving, made: Made, form_of_model: str) -> None:
    served = serving(made.trained() if form_of_model == "net" else None)
    said = served.client.post("/predict?explain=true", files=form(png(0), png(1)))
    assert said.status_code == 200, said.text
    for one in said.json()["predictions"]:
        assert one["heat_map"]["method"] == {"file": "occlusion", "net": "Grad-CAM"}[form_of_model]
        assert Image.open(io.BytesIO(base64.b64decode(one["heat_map"]["png"]))).size == (SIDE, SIDE)


def test_file_and_net_answer_alike(serving: Serving, made: Made) -> None:
    images = form(*(png(at, width=20 + at) for at in range(5)))
    one, two = (serving(model).client.post("/predict", files=images).json() for model in (None, made.trained()))
    for first, second in zip(one["predictions"], two["predictions"], strict=True):
        assert first["decision"] == second["decision"]
        assert list(first["probabilities"].values()) == pytest.approx(list(second["probabilities"].values()), abs=1e-3)
