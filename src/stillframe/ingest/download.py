"""Getting a published data set onto this machine: from a package, an archive, the Hub, or scikit-learn.

Every download is checked by its sha256 before anything of it is unpacked, and nothing is unpacked outside its folder.
"""

from __future__ import annotations

import csv
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.error import URLError
from urllib.parse import unquote, urlparse
from urllib.request import urlopen

from stillframe.config import FetchConfig
from stillframe.hashing import file_sha256
from stillframe.ingest.demo_sources import DemoData, make_demo_data
from stillframe.progress import bar

BLOCK = 1 << 20  # bytes read at a time
TIMEOUT_S = 60.0  # without a byte from the other side
OWN_FOLDER = "or get the images yourself and give their folder by data.path"


def get(fetch: FetchConfig, out: Path, work: Path, makers: Callable[[], Mapping[str, DemoData]] | None = None) -> None:
    """Bring what `fetch` names into the empty folder `out`.

    Args:
        fetch: section `data.fetch`.
        out: gets the data set.
        work: an empty folder for the download.
        makers: gives the demo data sets that can be made, by name; None: there are none.

    Raises:
        ValueError: it cannot be had, is not what its sha256 says, or does not hold `fetch.folder`.
    """
    out, work = out.absolute(), work.absolute()  # some of the work is done by commands that run elsewhere
    if fetch.kind in ("package", "debian", "url") and not fetch.sha256:
        raise ValueError(f"data.fetch.sha256 is missing: a download of kind {fetch.kind!r} is checked by it")
    if fetch.kind == "package":
        unpack(check(package(fetch.name, work), fetch.sha256), out, fetch.folder)
    elif fetch.kind == "debian":
        debian(fetch, out, work)
    elif fetch.kind == "url":
        unpack(check(url(fetch.name, work), fetch.sha256), out, fetch.folder)
    elif fetch.kind == "made":
        make_demo_data(fetch.name, makers() if makers is not None else {}, out, work, get)
    elif fetch.kind == "hub":
        hub(fetch.name, out)
    else:
        digits(fetch.name, out)


def check(path: Path, sha256: str | None) -> Path:
    """The file; ValueError when it is not the one that was published."""
    digest = file_sha256(path)
    if digest != sha256:
        raise ValueError(
            f"{path.name}: sha256 is {digest}, data.fetch.sha256 says {sha256}: not the file that was published"
        )
    return path


def _command(command: list[str], cwd: Path, hint: str) -> None:
    try:
        subprocess.run(command, cwd=cwd, check=True, stdout=sys.stderr, stderr=subprocess.PIPE, text=True)
    except FileNotFoundError:
        raise ValueError(f"{command[0]} is not on this machine: {hint}") from None
    except subprocess.CalledProcessError as error:
        last = (error.stderr or "").strip().splitlines()[-3:]
        raise ValueError(f"{' '.join(command[:4])} ... failed: {' | '.join(last)}: {hint}") from None


def package(name: str, work: Path) -> Path:
    """Download the wheel of a pinned Python package, without what it depends on."""
    if "==" not in name:
        raise ValueError(f"data.fetch.name = {name!r}: pin the package, as in elpv-dataset==1.0.0.post1")
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--only-binary",
        ":all:",
        "--disable-pip-version-check",
        "-qq",  # pip would name its indexes; what it has to say of an error it says all the same
    ]
    print(f"downloading the package {name}", file=sys.stderr)
    _command(
        [*command, "--dest", str(work), name], work, f"is there a network, and pip in this environment? {OWN_FOLDER}"
    )
    return _only(work, ".whl")


def debian(fetch: FetchConfig, out: Path, work: Path) -> None:
    """Download a Debian package as any user, and copy `fetch.folder` of it; nothing is installed."""
    hint = f"this needs Debian or Ubuntu with package lists (apt-get update); {OWN_FOLDER}"
    print(f"downloading the Debian package {fetch.name}", file=sys.stderr)
    _command(["apt-get", "download", fetch.name], work, hint)
    path = check(_only(work, ".deb"), fetch.sha256)
    tree = work / "tree"
    _command(["dpkg-deb", "-x", str(path), str(tree)], work, hint)
    folder = tree / (fetch.folder or ".")
    if not folder.is_dir():
        raise ValueError(f"{path.name} holds no folder {fetch.folder!r} (data.fetch.folder)")
    shutil.copytree(folder, out, dirs_exist_ok=True, symlinks=False)


def _only(work: Path, suffix: str) -> Path:
    files = sorted(work.glob(f"*{suffix}"))
    if len(files) != 1:
        raise ValueError(f"the download left {len(files)} {suffix} files")
    return files[0]


def url(address: str, work: Path) -> Path:
    """Download a file, with a progress bar."""
    parts = urlparse(address)
    if parts.scheme not in ("http", "https", "file"):
        raise ValueError(f"data.fetch.name = {address!r} is not an http(s) address")
    path = work / (PurePosixPath(unquote(parts.path)).name or "download")
    try:
        with urlopen(address, timeout=TIMEOUT_S) as response, path.open("wb") as file:
            total = int(response.headers.get("Content-Length") or 0)
            with bar(f"downloading {path.name} (bytes)", total) as advance:
                while block := response.read(BLOCK):
                    file.write(block)
                    advance(len(block))
    except (URLError, TimeoutError, ConnectionError) as error:
        raise ValueError(f"{address} cannot be had: {getattr(error, 'reason', None) or error}: {OWN_FOLDER}") from None
    return path


def unpack(archive: Path, out: Path, folder: str | None) -> None:
    """Unpack `folder` (or all) of a zip, wheel or tar file into `out`; another kind of file is copied as it is.

    Raises:
        ValueError: a member would land outside `out`, or nothing is in `folder`.
    """
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as zipped:
            members = [
                (name, info)
                for info in zipped.infolist()
                if (name := _inside(info.filename, folder)) and not info.is_dir()
            ]
            for name, info in members:
                _write(out, name, zipped.open(info))
    elif tarfile.is_tarfile(archive):
        with tarfile.open(archive) as tar:
            members = [(name, info) for info in tar if (name := _inside(info.name, folder)) and info.isfile()]  # type: ignore[misc]
            for name, info in members:
                _write(out, name, tar.extractfile(info))  # type: ignore[arg-type]
    else:
        shutil.copy(archive, out / archive.name)
        return
    if not members:
        raise ValueError(f"{archive.name} holds no files in {folder!r} (data.fetch.folder)")


def _inside(name: str, folder: str | None) -> str:
    """A member's path below `folder`; "" when it is elsewhere in the archive."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(f"the archive holds {name!r}, which would land outside its folder: refused")
    if folder is None:
        return str(path)
    inside = PurePosixPath(folder)
    return str(path.relative_to(inside)) if path.is_relative_to(inside) else ""


def _write(out: Path, name: str, source: Any) -> None:
    target = out / name
    target.parent.mkdir(parents=True, exist_ok=True)
    with source, target.open("wb") as file:
        shutil.copyfileobj(source, file, BLOCK)


def hub(name: str, out: Path) -> None:
    """A data set of the Hub as image files and a table."""
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError

    try:
        loaded = load_dataset(name)
    except (DatasetsError, OSError, ValueError) as error:
        raise ValueError(f"the Hub's data set {name!r} cannot be had: {error}: {OWN_FOLDER}") from None
    write_hub(loaded, out)


def write_hub(splits: Mapping[str, Any], out: Path) -> None:
    """Write `datasets.Dataset` splits as `<split>/<row>.<format>` and labels.csv (path, label, split), bytes unchanged.

    Raises:
        ValueError: no image column, or no label column.
    """
    from datasets import ClassLabel, Image

    with (out / "labels.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["path", "label", "split"])
        for split, rows in splits.items():
            images = [name for name, kind in rows.features.items() if isinstance(kind, Image)]
            targets = [name for name, kind in rows.features.items() if isinstance(kind, ClassLabel)]
            targets += [name for name in ("label", "labels", "class", "category") if name in rows.features]
            if not images or not targets:
                raise ValueError(f"{split}: columns {sorted(rows.features)}: one of images and one of labels is needed")
            kind = rows.features[targets[0]]
            (out / split).mkdir()
            with bar(f"writing {split}", len(rows)) as advance:
                for index, row in enumerate(rows.cast_column(images[0], Image(decode=False))):
                    path = f"{split}/{index:07d}{_write_image(row[images[0]], out / split / f'{index:07d}')}"
                    value = row[targets[0]]
                    table.writerow(
                        [
                            path,
                            kind.int2str(value) if isinstance(kind, ClassLabel) and value is not None else value,
                            split,
                        ]
                    )
                    advance(1)


def _write_image(image: dict[str, Any] | None, target: Path) -> str:
    """Write an image's bytes; returns the suffix, by what they are (a missing image becomes an empty file)."""
    content = b"" if image is None else image["bytes"] or Path(image["path"]).read_bytes()
    suffix = ".jpg" if content.startswith(b"\xff\xd8") else ".png" if content.startswith(b"\x89PNG") else ".img"
    target.with_suffix(suffix).write_bytes(content)
    return suffix


def digits(name: str, out: Path) -> None:
    """scikit-learn's 1,797 images of handwritten digits, 8 x 8 px, as PNG files in class folders."""
    if name != "load_digits":
        raise ValueError(f"data.fetch.name = {name!r}: of kind sklearn there is load_digits")
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_digits

    loaded = load_digits()
    for index, (image, digit) in enumerate(zip(loaded.images, loaded.target, strict=True)):
        folder = out / str(digit)
        folder.mkdir(exist_ok=True)
        Image.fromarray(np.round(image * (255.0 / 16.0)).astype(np.uint8)).save(folder / f"{index:04d}.png")
