import hashlib
import io
import os
import shutil
import subprocess
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stillframe.config import FetchConfig
from stillframe.ingest import download, sources
from stillframe.paths import read_json
from stillframe.stages import fetch
from stillframe.tasks.classification.target import TARGET
from tiny import picture


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def zipped(path, members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def below(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_the_users_own_folder_fetches_nothing(tmp_path):
    demo = FetchConfig(kind="url", name="https://unreachable.invalid/x.zip", sha256="0" * 64, folder=None)
    fetch.run(demo, "/some/where", raw=tmp_path / "raw")
    assert below(tmp_path / "raw") == {"source.json"}
    assert read_json(tmp_path / "raw" / "source.json") == {"path": "/some/where"}
    with pytest.raises(ValueError, match="data.path and data.fetch are both null"):
        fetch.run(None, None, raw=tmp_path / "raw")


def test_an_archive_is_checked_and_its_folder_unpacked(tmp_path):
    path = zipped(tmp_path / "set.zip", {"pack/data/a/1.png": b"1", "pack/data/b/2.png": b"2", "pack/code.py": b"x"})
    asked = FetchConfig(kind="url", name=path.as_uri(), sha256=sha256(path), folder="pack/data")
    fetch.run(asked, None, raw=tmp_path / "raw")
    assert below(tmp_path / "raw") == {"a/1.png", "b/2.png", "source.json"}
    assert read_json(tmp_path / "raw" / "source.json")["fetch"]["sha256"] == sha256(path)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["raw", "set.zip"]  # no temporary folder stays


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sha256": "0" * 64}, "sha256 is .* not the file that was published"),
        ({"sha256": None}, "data.fetch.sha256 is missing"),
        ({"folder": "other"}, "holds no files in 'other'"),
        ({"name": "ftp://host/x"}, "is not an http"),
        ({"name": "file:///nowhere/x.zip"}, "cannot be had: .*data.path"),
    ],
)
def test_a_failed_fetch_keeps_what_was_there(tmp_path, change, message):
    path = zipped(tmp_path / "set.zip", {"data/1.png": b"1"})
    values = {"kind": "url", "name": path.as_uri(), "sha256": sha256(path), "folder": "data"}
    fetch.run(FetchConfig(**values), None, raw=tmp_path / "raw")
    with pytest.raises(ValueError, match=message):
        fetch.run(FetchConfig(**{**values, **change}), None, raw=tmp_path / "raw")
    assert below(tmp_path / "raw") == {"1.png", "source.json"}


@pytest.mark.parametrize("name", ["../evil.txt", "/evil.txt", "data/../../evil.txt", "..\\evil.txt"])
def test_nothing_is_unpacked_outside(tmp_path, name):
    archive = zipped(tmp_path / "a.zip", {"data/1.png": b"1", name: b"!"})
    tar = tmp_path / "a.tar.gz"
    with tarfile.open(tar, "w:gz") as file:
        info = tarfile.TarInfo(name)
        file.addfile(info, io.BytesIO(b""))
    for path in (archive, tar):
        with pytest.raises(ValueError, match="would land outside its folder"):
            download.unpack(path, tmp_path / "out", None)
    assert not (tmp_path / "out").exists()


def test_tar_files_without_their_links(tmp_path):
    tar = tmp_path / "a.tar.xz"
    with tarfile.open(tar, "w:xz") as file:
        info = tarfile.TarInfo("set/1.png")
        info.size = 3
        file.addfile(info, io.BytesIO(b"abc"))
        link = tarfile.TarInfo("set/passwd.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        file.addfile(link)
    download.unpack(tar, tmp_path / "out", "set")
    assert below(tmp_path / "out") == {"1.png"}


def test_a_package_by_pip_from_a_local_index(tmp_path, monkeypatch):
    shop = tmp_path / "shop"
    shop.mkdir()
    meta = "tiny_set-1.0.dist-info"
    wheel = zipped(
        shop / "tiny_set-1.0-py3-none-any.whl",
        {
            "tiny_set/data/labels.csv": b"path,label\n",
            f"{meta}/METADATA": b"Metadata-Version: 2.1\nName: tiny-set\nVersion: 1.0\n",
            f"{meta}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            f"{meta}/RECORD": b"",
        },
    )
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shop))
    monkeypatch.chdir(tmp_path)  # as in a repository: data/raw is a relative path
    asked = FetchConfig(kind="package", name="tiny-set==1.0", sha256=sha256(wheel), folder="tiny_set/data")
    fetch.run(asked, None, raw=Path("raw"))
    assert below(tmp_path / "raw") == {"labels.csv", "source.json"}
    with pytest.raises(ValueError, match="is there a network, and pip"):
        fetch.run(
            FetchConfig(kind="package", name="tiny-set==2.0", sha256="0", folder=None), None, raw=tmp_path / "raw"
        )
    with pytest.raises(ValueError, match="pin the package"):
        fetch.run(FetchConfig(kind="package", name="tiny-set", sha256="0", folder=None), None, raw=tmp_path / "raw")


def test_elsewhere_than_on_debian_the_error_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match="apt-get is not on this machine: .*data.path"):
        fetch.run(FetchConfig(kind="debian", name="some-set", sha256="0", folder=None), None, raw=tmp_path / "raw")


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="makes a Debian package: needs dpkg-deb")
def test_a_debian_package_is_unpacked_not_installed(tmp_path, monkeypatch):
    tree = tmp_path / "tree"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN" / "control").write_text(
        "Package: some-set\nVersion: 1\nArchitecture: all\nMaintainer: test <t@example.org>\nDescription: test\n"
    )
    (tree / "usr/share/set").mkdir(parents=True)
    (tree / "usr/share/set/images").write_bytes(b"x")
    package = tmp_path / "some-set_1_all.deb"
    subprocess.run(["dpkg-deb", "--build", str(tree), str(package)], check=True, stdout=subprocess.DEVNULL)
    apt = tmp_path / "bin" / "apt-get"
    apt.parent.mkdir()
    apt.write_text(f"#!/bin/sh\ncp {package} .\n")
    apt.chmod(0o755)
    monkeypatch.setenv("PATH", f"{apt.parent}{os.pathsep}{os.environ['PATH']}")
    asked = {"kind": "debian", "name": "some-set", "sha256": sha256(package)}
    monkeypatch.chdir(tmp_path)
    fetch.run(FetchConfig(**asked, folder="usr/share/set"), None, raw=Path("raw"))
    assert below(tmp_path / "raw") == {"images", "source.json"}
    with pytest.raises(ValueError, match="holds no folder 'usr/share/other'"):
        fetch.run(FetchConfig(**asked, folder="usr/share/other"), None, raw=tmp_path / "raw")


def test_digits_are_class_folders(tmp_path, data):
    fetch.run(FetchConfig(kind="sklearn", name="load_digits", sha256=None, folder=None), None, raw=tmp_path / "raw")
    listing = sources.read_source(tmp_path / "raw", data(), TARGET)
    assert listing.layout == "folders" and len(listing.rows) == 1797
    assert {row.target for row in listing.rows} == set("0123456789")
    with pytest.raises(ValueError, match="there is load_digits"):
        fetch.run(FetchConfig(kind="sklearn", name="load_iris", sha256=None, folder=None), None, raw=tmp_path / "raw")


def test_a_hub_data_set_becomes_files_and_a_table(tmp_path, data):
    from datasets import ClassLabel, Dataset, Features
    from datasets import Image as Column

    def packed(seed, kind):
        out = io.BytesIO()
        Image.fromarray(picture(seed)).save(out, kind)
        return out.getvalue()

    features = Features({"image": Column(), "label": ClassLabel(names=["cat", "dog"])})
    images = [{"bytes": packed(1, "PNG"), "path": None}, {"bytes": packed(2, "JPEG"), "path": None}]
    columns = {"image": images, "label": [1, 0]}
    rows = Dataset.from_dict(columns, features=features)
    download.write_hub({"train": rows, "test": rows.select([0])}, tmp_path)
    listing = sources.read_source(tmp_path, data(columns={"split": "split"}), TARGET)
    found = [(row.id, row.target, row.split) for row in listing.rows]
    assert found == [
        ("test/0000000.png", "dog", "test"),
        ("train/0000000.png", "dog", "train"),
        ("train/0000001.jpg", "cat", "train"),
    ]
    assert np.array_equal(np.asarray(Image.open(tmp_path / "train/0000000.png")), picture(1))
    with pytest.raises(ValueError, match="one of images and one of labels"):
        download.write_hub({"train": Dataset.from_dict({"text": ["x"]})}, tmp_path)
