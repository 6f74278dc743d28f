"""Masks from every form in which they are kept, through preprocessing, into the store."""

import csv
import json
from functools import partial

import numpy as np
import pytest
from PIL import Image

from masked import MASKS, mask_of, masked_folder, scene
from stillframe.ingest import chunks, prepare, sources, spool, workers
from stillframe.ingest.decode import resize_nearest
from stillframe.ingest.pairs import match_names
from stillframe.reporting.audit_page import write_page
from stillframe.store.split import Split
from stillframe.tasks import find_task
from stillframe.tasks.segmentation import IGNORE, mask_classes
from stillframe.tasks.segmentation.target import TARGET
from stillframe.types import DatasetCard

detect, read_source = partial(sources.detect, target=TARGET), partial(sources.read_source, target=TARGET)


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    """No pool of processes for a dozen tiny files."""
    monkeypatch.setattr(
        workers, "survey_all", lambda parts, **options: [chunks.process(p) for p in parts if not spool.finished(p)]
    )


@pytest.fixture
def section(data):
    def make(masks=None, **values):
        size = {"image_size": 32, "near_duplicates": "off", **values}
        return data(masks={**MASKS, **(masks or {})}, **size)

    return make


@pytest.fixture
def go(tmp_path):
    def run(folder, section, seed=0, out="out", task="segmentation"):
        target, folders = find_task(task).target, {"out": tmp_path / out, "work": tmp_path / "work"}
        prepare.prepare(folder, section, target, seed=seed, page=write_page, **folders)
        return tmp_path / out

    return run


def rows(out):
    """id -> (image, mask) over all splits."""
    found = {}
    for name in ("train", "val", "test"):
        split = Split(out / name)
        places = np.arange(len(split))
        pairs = zip(split.images(places), split.target("mask", places), strict=True)
        found |= dict(zip(split.table["id"], pairs, strict=True))
    return found


def quarantine(path):
    with open(path, encoding="utf-8", newline="") as file:
        return {row["path"]: row["reason"] for row in csv.DictReader(file)}


def check(out, classes, count=12):
    """Every stored mask is the one that its image shows."""
    card, found = DatasetCard.read(out / "card.json"), rows(out)
    assert card.classes == classes and len(found) == count
    for image, mask in found.values():
        np.testing.assert_array_equal(mask, mask_of(image))
    held = {name: sum((mask == at).any() for _, mask in found.values()) for at, name in enumerate(classes)}
    px = {name: sum(int((mask == at).sum()) for _, mask in found.values()) for at, name in enumerate(classes)}
    assert {name: sum(card.counts[split][name] for split in card.counts) for name in classes} == held
    assert {name: sum(card.pixels[split][name] for split in card.pixels) for name in classes} == px
    return found


def test_matching_names(tmp_path, section, go):
    folder = masked_folder(tmp_path / "source")
    assert detect(folder, section()) == "masks"
    out = go(folder, section())
    found = check(out, ["0", "1", "2"])
    audit = json.loads((out / "audit.json").read_text())
    assert audit["layout"] == "masks" and sum(audit["sizes_of"].values()) == 12
    assert sum(audit["pixels"]["train"].values()) == audit["sizes_of"]["train"] * 32 * 32
    page = (out / "audit.html").read_text()
    assert "data:image" in page and "of all pixels" in page and page.count("background:#") >= 3
    train = Split(out / "train")
    for label, name in zip(train.table["label"], train.table["id"], strict=True):
        assert label == 1 + np.bincount(found[name][1].ravel(), minlength=3)[1:].argmax()


def test_twice_the_same_bytes_and_another_seed_another_split(tmp_path, section, go):
    folder = masked_folder(tmp_path / "source", 24)
    first, again = go(folder, section()), go(folder, section(), out="again")
    for name in ("train/data-00000-of-00001.arrow", "test/data-00000-of-00001.arrow", "card.json", "audit.json"):
        assert (first / name).read_bytes() == (again / name).read_bytes()
    other = go(folder, section(), seed=1, out="other")
    assert DatasetCard.read(other / "card.json").split_hash != DatasetCard.read(first / "card.json").split_hash


def test_named_classes_and_what_is_ignored(tmp_path, section, go):
    folder = masked_folder(tmp_path / "source")
    mask = np.asarray(Image.open(folder / "masks/03.png")).copy()
    mask[:2] = 255
    Image.fromarray(mask).save(folder / "masks/03.png")
    out = go(folder, section(classes={"ground": ["0"], "thing": ["1", "2.0"]}))
    card, found = DatasetCard.read(out / "card.json"), rows(out)
    assert card.classes == ["ground", "thing"]
    assert (found["images/03.png"][1][:2] == IGNORE).all()
    image, made = found["images/04.png"]
    np.testing.assert_array_equal(made, mask_of(image) > 0)


def coloured(folder, mode):
    colours = np.array([[0, 0, 0], [0, 128, 255], [200, 10, 10]], dtype=np.uint8)
    for path in sorted((folder / "masks").iterdir()):
        mask = np.asarray(Image.open(path))
        if mode == "P":
            made = Image.fromarray(mask + 5).convert("L")
            made = Image.frombytes("P", made.size, made.tobytes())
            made.putpalette(bytes(15) + colours.tobytes())
        else:
            made = Image.fromarray(colours[mask])
        made.save(path)
    return folder


@pytest.mark.parametrize("mode", ["RGB", "P"])
def test_a_colour_map_by_table(tmp_path, section, go, mode):
    folder = coloured(masked_folder(tmp_path / "source"), mode)
    (folder / "classes.csv").write_text("name,r,g,b\nground,0,0,0\nsquare,0,128,255\ndisc,200,10,10\n")
    check(go(folder, section({"colours": "classes.csv"})), ["ground", "square", "disc"])


def test_a_colour_map_by_parameters(tmp_path, section, go):
    folder = coloured(masked_folder(tmp_path / "source"), "RGB")
    classes = {"ground": ["0"], "square": ["#0080FF"], "disc": ["200, 10, 10"]}  # gray colours by their value, too
    check(go(folder, section(classes=classes)), ["ground", "square", "disc"])


def test_a_palette_by_its_numbers(tmp_path, section, go):
    folder = coloured(masked_folder(tmp_path / "source"), "P")
    check(go(folder, section()), ["5", "6", "7"])


@pytest.mark.parametrize("form", ["name_class", "class/name"])
def test_one_file_a_class(tmp_path, section, go, form):
    folder = masked_folder(tmp_path / "source")
    for path in sorted((folder / "masks").iterdir()):
        mask = np.asarray(Image.open(path))
        path.unlink()
        for value, name in ((1, "square"), (2, "disc")):
            target = folder / "masks" / (f"{path.stem}_{name}.png" if form == "name_class" else f"{name}/{path.name}")
            target.parent.mkdir(exist_ok=True)
            Image.fromarray(((mask == value) * 255).astype(np.uint8)).save(target)
    classes = {"ground": ["background"], "square": ["square"], "disc": ["disc"]}
    check(go(folder, section(classes=classes)), ["ground", "square", "disc"])
    assert DatasetCard.read(go(folder, section(), out="plain") / "card.json").classes == [
        "background",
        "disc",
        "square",
    ]


def test_a_table(tmp_path, section, go):
    folder = masked_folder(tmp_path / "source")
    lines = [f"images/{n:02d}.png,masks/{n:02d}.png,{'test' if n < 4 else ''},g{n // 2},x{n % 2}" for n in range(12)]
    (folder / "list.csv").write_text("path,annotation,split,group,kind\n" + "\n".join(lines))
    columns = {"split": "split", "group": "group", "slices": ["kind"]}
    values = {"table": "list.csv", "columns": {**columns, "path": "path", "label": "label", "weight": None}}
    with pytest.raises(ValueError, match=r"data\.masks\.column is null"):
        go(folder, section(**values))
    out = go(folder, section({"column": "annotation"}, **values))
    check(out, ["0", "1", "2"])
    assert set(Split(out / "test").table["id"]) == {f"images/{n:02d}.png" for n in range(4)}
    groups = [set(Split(out / name).table["group"]) for name in ("train", "val", "test")]
    assert not (groups[0] & groups[1] or groups[0] & groups[2] or groups[1] & groups[2])
    assert json.loads(Split(out / "test").table["slices"][0]) == {"kind": "x0"}


def polygons(folder, rle=False):
    """COCO files instead of masks: squares as polygons, discs as run lengths (compressed or plain)."""
    from pycocotools import mask as coco

    images, annotations = [], []
    for number, path in enumerate(sorted((folder / "masks").iterdir())):
        mask = np.asarray(Image.open(path))
        images.append({"id": number, "file_name": path.name, "height": mask.shape[0], "width": mask.shape[1]})
        for value in (1, 2):
            if not (mask == value).any():
                continue
            coded = coco.encode(np.asfortranarray(mask == value))
            shape = {"size": coded["size"], "counts": coded["counts"].decode()}
            if not rle:
                flat = np.concatenate([[0], (mask == value).T.ravel().astype(int), [0]])
                turns = np.flatnonzero(np.diff(flat))
                shape["counts"] = [*np.diff(np.concatenate([[0], turns])).tolist(), int(mask.size - turns[-1])]
            one = {"id": len(annotations), "image_id": number, "category_id": 10 * value, "segmentation": shape}
            annotations.append({**one, "area": int((mask == value).sum())})
    categories = [{"id": 10, "name": "square"}, {"id": 20, "name": "disc"}, {"id": 30, "name": "absent"}]
    text = json.dumps({"images": images, "annotations": annotations, "categories": categories})
    (folder / "labels.json").write_text(text)
    return folder


@pytest.mark.parametrize("rle", [True, False])
def test_coco_run_lengths(tmp_path, section, go, rle):
    folder = polygons(masked_folder(tmp_path / "source"), rle)
    classes = {"ground": ["background"], "square": ["square"], "disc": ["disc"]}
    check(go(folder, section({"coco": ["labels.json"]}, classes=classes)), ["ground", "square", "disc"])


def test_coco_polygons_the_smaller_ones_on_top(tmp_path, section, go):
    folder = masked_folder(tmp_path / "source")
    text = json.loads((polygons(folder) / "labels.json").read_text())
    boxes = {10: (4, 4, 28, 28), 20: (8, 10, 16, 20)}  # left, top, right, bottom
    text["annotations"] = [
        {"id": 2 * n + k, "image_id": n, "category_id": kind, "segmentation": [[a, b, c, b, c, d, a, d]], "area": k}
        for n in range(12)
        for k, (kind, (a, b, c, d)) in zip((9, 1), boxes.items(), strict=True)
    ]
    (folder / "labels.json").write_text(json.dumps(text))
    found = rows(go(folder, section({"coco": ["labels.json"], "background": None})))
    mask = found["images/00.png"][1]  # classes by name: disc, square
    assert (mask[10:20, 8:16] == 0).all() and mask[5, 5] == 1 and mask[0, 0] == IGNORE
    assert (mask == 1).sum() == 24 * 24 - 8 * 10


def test_splits_by_folders_and_by_names_of_coco_files(tmp_path, section):
    for part, count in (("train", 4), ("valid", 3), ("test", 2)):
        masked_folder(tmp_path / "source" / part, count)
    listing = read_source(tmp_path / "source", section())
    assert [row.split for row in listing.rows] == ["test"] * 2 + ["train"] * 4 + ["val"] * 3
    for part in ("train", "valid", "test"):
        polygons(tmp_path / "source" / part)
        (tmp_path / "source" / part / "labels.json").rename(tmp_path / "source" / f"instances_{part}2017.json")
        (tmp_path / "source" / part / "images").rename(tmp_path / "source" / part / "all")
    with pytest.raises(ValueError, match="also in another file"):
        read_source(tmp_path / "source", section({"coco": ["instances_train2017.json", "instances_valid2017.json"]}))
    listing = read_source(tmp_path / "source", section({"coco": ["instances_valid2017.json"]}))
    assert {row.split for row in listing.rows} == {"val"}


def test_what_is_wrong_with_a_mask_is_said_with_its_file(tmp_path, section, go):
    folder = masked_folder(tmp_path / "source", 40)
    Image.fromarray(np.zeros((32, 30), np.uint8)).save(folder / "masks/00.png")
    (folder / "masks/01.png").unlink()
    (folder / "masks/02.png").write_bytes((folder / "masks/02.png").read_bytes()[:60])
    mask = np.asarray(Image.open(folder / "masks/03.png")).copy()
    mask[0, 0] = 77
    Image.fromarray(mask).save(folder / "masks/03.png")
    colour = np.asarray(Image.open(folder / "masks/04.png").convert("RGB")).copy()
    colour[0, 0] = (1, 2, 3)
    Image.fromarray(colour).save(folder / "masks/04.png")
    Image.fromarray(np.full((32, 32), 255, np.uint8)).save(folder / "masks/05.png")
    Image.fromarray(scene(6)[0]).save(folder / "masks/06.jpg", quality=60)
    (folder / "masks/06.png").unlink()
    (folder / "masks/07.tif").write_bytes((folder / "masks/07.png").read_bytes())
    Image.fromarray(np.zeros((32, 32, 4), np.uint8)).save(folder / "masks/08.png")
    out = go(folder, section(classes={"ground": ["0"], "square": ["1"], "disc": ["2"]}))
    reasons = quarantine(out / "quarantine.csv")
    expected = {
        "00": "mask of another size: masks/00.png is 30 x 32 px, the image 32 x 32 px",
        "01": "mask missing: nothing in masks is named like it",
        "02": "mask damaged: masks/02.png",
        "03": "mask value not in data.classes: '77' in masks/03.png",
        "04": "mask value not in data.classes: '#010203' in masks/04.png",
        "05": "mask without a class: every pixel of masks/05.png is ignored",
        "06": "mask not of classes: masks/06.jpg holds",
        "07": "mask ambiguous: masks/07.png and masks/07.tif",
        "08": "mask not of classes: masks/08.png is partly transparent",
    }
    assert set(reasons) == {f"images/{number}.png" for number in expected}
    for number, words in expected.items():
        assert reasons[f"images/{number}.png"].startswith(words)
    assert len(rows(out)) == 31


def test_too_many_bad_masks_stop_the_run(tmp_path, section, go):
    folder = masked_folder(tmp_path / "source")
    for number in range(8):
        (folder / f"masks/{number:02d}.png").write_bytes(b"no mask")
    with pytest.raises(ValueError, match=r"8 of 12 files are bad \(8 mask damaged\)"):
        go(folder, section())
    assert not (tmp_path / "out").exists()
    assert "masks/00.png" in quarantine(tmp_path / "work/quarantine.csv")["images/00.png"]


def test_one_image_with_two_masks_is_a_conflict_and_a_copy_is_not(tmp_path, section, go):
    folder = masked_folder(tmp_path / "source", 20)
    for copy, original in (("90", "00"), ("91", "01")):
        for kind in ("images", "masks"):
            (folder / f"{kind}/{copy}.png").write_bytes((folder / f"{kind}/{original}.png").read_bytes())
    Image.fromarray(scene(5)[1]).save(folder / "masks/91.png")
    out = go(folder, section())
    reasons = quarantine(out / "quarantine.csv")
    assert set(reasons) == {"images/01.png", "images/91.png"} and "conflict" in reasons["images/01.png"]
    table = {name: set(Split(out / name).table["id"]) for name in ("train", "val", "test")}
    assert any({"images/00.png", "images/90.png"} <= ids for ids in table.values()), "copies lie in one split"


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("stored", ["as the image", "upright", "with its own"])
def test_a_mask_turns_with_its_image(tmp_path, section, go, orientation, stored):
    from stillframe.ingest.decode import upright

    if stored == "upright" and orientation in (2, 3, 4):
        return  # such a mask has the stored image's size, too: it cannot be told apart, and is turned
    folder = masked_folder(tmp_path / "source", width=24, height=32)
    image, mask = scene(77, 24, 32)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(image).save(folder / "images/77.png", exif=exif)
    kept = upright(mask, orientation) if stored == "upright" else mask
    Image.fromarray(kept).save(folder / "masks/77.png", **({"exif": exif} if stored == "with its own" else {}))
    image, mask = rows(go(folder, section(resize="pad")))["images/77.png"]
    inside = mask != IGNORE
    np.testing.assert_array_equal(mask[inside], mask_of(image)[inside])
    assert inside.sum() == 24 * 32 and len(np.unique(mask)) >= 3


def test_tiles_of_large_pictures(tmp_path, section, go):
    folder = masked_folder(tmp_path / "source", width=50, height=70)
    small, mask = scene(99, 20, 20)
    Image.fromarray(small).save(folder / "images/99.png")
    Image.fromarray(mask).save(folder / "masks/99.png")
    out = go(folder, section({"overlap": 0.25}))
    splits = {name: Split(out / name) for name in ("train", "val", "test")}
    homes: dict[str, set[str]] = {}
    for name, split in splits.items():
        assert split.tiled
        for origin in split.table["origin"]:
            homes.setdefault(origin, set()).add(name)
    assert len(homes) == 13 and all(len(home) == 1 for home in homes.values())
    for name, (image, found) in rows(out).items():
        origin, place = name.split("@")
        top, left = map(int, place.split(","))
        whole, its_mask = scene(int(origin[7:9]), *((20, 20) if "99" in origin else (50, 70)))
        part = its_mask[top : top + 32, left : left + 32]
        np.testing.assert_array_equal(found[: part.shape[0], : part.shape[1]], part)
        np.testing.assert_array_equal(image[: part.shape[0], : part.shape[1]], whole[top : top + 32, left : left + 32])
        assert (found[part.shape[0] :] == IGNORE).all() and (found[:, part.shape[1] :] == IGNORE).all()
    card = DatasetCard.read(out / "card.json")
    table = splits["train"].table
    assert set(table["source_width"]) <= {50, 20} and len(table) > sum(card.counts["train"].values()) / 3


def test_what_is_missing_is_named(tmp_path, section, go, class_folders, data):
    with pytest.raises(ValueError, match=r"no folders images/ and masks/"):
        go(class_folders({"cat": 3, "dog": 3}), section())
    folder = masked_folder(tmp_path / "masked")
    with pytest.raises(ValueError, match=r"data=masks, model=unet and task=segmentation"):
        go(folder, data(), task="classification")
    with pytest.raises(ValueError, match=r"data\.masks\.coco: .*none\.json is not there"):
        go(folder, section({"coco": ["none.json"]}))
    (folder / "none.json").write_text('{"images": []}')
    with pytest.raises(ValueError, match=r"none\.json is not a COCO file: KeyError: 'categories'"):
        go(folder, section({"coco": ["none.json"]}))
    (folder / "none.csv").write_text("name,shade\na,1\n")
    with pytest.raises(ValueError, match=r"none\.csv .* has the columns name, shade: it needs name, and value"):
        go(folder, section({"colours": "none.csv"}))
    with pytest.raises(ValueError, match=r"class 'tree' has no usable image"):
        go(folder, section(classes={"a": ["0"], "b": ["1", "2"], "tree": ["3"]}))
    with pytest.raises(ValueError, match=r"data\.masks\.ignore"):
        go(folder, section({"ignore": ["1", "2"]}))


def test_a_changed_mask_is_found(tmp_path, section, monkeypatch):
    folder = masked_folder(tmp_path / "source")
    write = prepare.write

    def meddle(*arguments):
        Image.fromarray(np.zeros((32, 32), np.uint8)).save(folder / "masks/02.png")
        return write(*arguments)

    monkeypatch.setattr(prepare, "write", meddle)
    with pytest.raises(ValueError, match=r"changed while the stage ran, e\.g\. masks/02\.png"):
        prepare.prepare(folder, section(), TARGET, seed=0, out=tmp_path / "out", work=tmp_path / "work")


@pytest.mark.parametrize("how", ["squash", "pad", "crop"])
def test_masks_are_resized_as_images_without_new_values(how):
    from stillframe.ingest.decode import resize

    image, mask = scene(4, 90, 64)
    small, small_mask = resize(image, 32, how), resize_nearest(mask, 32, how, IGNORE)
    assert set(np.unique(small_mask)) <= {0, 1, 2, IGNORE}
    inside = small_mask != IGNORE
    assert (mask_of(small)[inside] == small_mask[inside]).mean() > 0.95  # but for mixed pixels at edges
    assert inside.all() == (how != "pad")


@pytest.mark.parametrize(
    ("label", "expected"), [("255,0,0", "#ff0000"), ("(1, 2, 3)", "#010203"), ("#FF00aa", "#ff00aa"), ("7.0", "7")]
)
def test_spellings_of_labels(label, expected):
    assert mask_classes.canonical_label(label) == expected


def test_the_longest_name_wins():
    found = match_names({"images/a.png": "a", "images/a_b.png": "a_b"}, {"m/a_b_c.png": "a_b_c"}, "")
    assert found == {"images/a_b.png": [("c", "m/a_b_c.png")]}


def test_prepared_at_more_than_256_px_masks_lose_nothing(tmp_path, section, go):
    folder = masked_folder(tmp_path / "source", width=300, height=300)
    out = go(folder, section(image_size=300))
    assert Split(out / "train").encoding == "jpeg"
    for name, (_, mask) in rows(out).items():
        np.testing.assert_array_equal(mask, scene(int(name[7:9]), 300, 300)[1])
