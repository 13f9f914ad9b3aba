"Data sets: splits, hashes, and every way a file can be missing or wrong."
import gzip
import os
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from creative_nb.core import repo_root
from creative_nb.data import DATASETS, ImageData, Split, check_data, dataset, load_data
from creative_nb.images import image_files, read_image, read_images

RAW = repo_root() / "data/raw"
needs_mnist = pytest.mark.skipif(not (RAW / "MNIST/raw").is_dir(), reason="real MNIST is not in data/raw")
needs_both = pytest.mark.skipif(not all((RAW / s / "raw").is_dir() for s in ("MNIST", "FashionMNIST")),
                                reason="real MNIST and FashionMNIST are not in data/raw")


def folder_of(path, n=30, size=(6, 8), mode="L", classes=("cat", "dog")):
    for i in range(n):
        p = path / classes[i % len(classes)] / f"{i:03}.png"
        p.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, 256, (*size, 3) if mode == "RGB" else size, dtype=np.uint8)
        Image.fromarray(pixels).save(p)
    return path


def test_digits_split_is_whole_and_fixed():
    data, other = load_data("digits"), load_data("digits", split_seed=1)
    assert [len(s) for s in data.splits.values()] == [1257, 180, 360]
    images = [sorted(i.numpy().tobytes() for s in d.splits.values() for i in s.images) for d in (data, other)]
    assert images[0] == images[1]
    assert data.content_hash == load_data("digits").content_hash != other.content_hash
    assert data.train.images.dtype == torch.float32 and 0 <= data.train.images.min() and data.train.images.max() <= 1


@needs_mnist
def test_mnist_is_the_canonical_set():
    data = load_data("mnist", download=False)
    assert [len(s) for s in data.splits.values()] == [55_000, 5_000, 10_000] and data.image_shape == (1, 28, 28)
    counts = sum(torch.bincount(s.labels, minlength=10) for s in (data.train, data.valid))
    assert counts.tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert data.test.labels[:5].tolist() == [7, 2, 1, 0, 4]


@needs_both
def test_combined_is_the_concatenation():
    mnist, fmnist, both = (load_data(n, download=False) for n in ("mnist", "fmnist", "combined"))
    assert [len(s) for s in both.splits.values()] == [110_000, 10_000, 20_000] and len(both.class_names) == 20
    assert torch.equal(both.train.images, torch.cat([mnist.train.images, fmnist.train.images]))
    assert torch.equal(both.train.labels, torch.cat([mnist.train.labels, fmnist.train.labels + 10]))
    assert torch.equal(both.train_groups.bincount(), torch.tensor([55_000, 55_000]))
    assert torch.equal(mnist.train_groups, mnist.train.labels)


def test_unknown_name():
    with pytest.raises(ValueError, match="name='cifar10': expected one of digits, mnist"): load_data("cifar10")


def test_parts_of_a_set():
    assert DATASETS["combined"].parts == ("mnist", "fmnist") and DATASETS["digits"].parts == ("digits",)


def drawn(root, split_seed, download, size=None, name="drawn"):
    "A loader that answers with what it was asked."
    images = torch.full((20, 1, *(size or (2, 2))), split_seed / 100)
    split = Split(images, torch.arange(20) % 2)
    return ImageData(name, split, split, split, (str(root), str(download)), (0, 1))


@pytest.fixture
def registered():
    before = dict(DATASETS)
    yield
    DATASETS.clear()
    DATASETS.update(before)


def test_registered_loader_gets_its_options(registered, tmp_path):
    assert dataset("drawn", parts=("one", "two"))(drawn) is drawn and drawn.parts == ("one", "two")
    data = load_data("drawn", tmp_path, size=(4, 5), split_seed=7, download=False)
    assert data.class_names == (str(tmp_path), "False") and data.image_shape == (1, 4, 5)
    assert data.train.images.unique().item() == pytest.approx(0.07)


def test_size_is_refused_by_a_set_that_has_its_own():
    with pytest.raises(ValueError, match=r"size=\(9, 9\): digits has its own size"): load_data("digits", size=(9, 9))


def test_a_name_is_registered_once(registered):
    dataset("drawn")(drawn)
    dataset("drawn")(drawn)  # as when a cell runs again
    with pytest.raises(ValueError, match="name='digits': taken by the loader _digits"): dataset("digits")(drawn)
    assert DATASETS["digits"] is not drawn


EXTENSION = """
import torch
from creative_nb.data import ImageData, Split, dataset, hold_out

@dataset("extended")
def extended(root, split_seed, download):
    train, test = hold_out(Split(torch.rand(30, 1, 4, 4), torch.arange(30) % 3), 5, split_seed)
    return ImageData("extended", *hold_out(train, 5, split_seed), test, tuple("abc"), (0, 1, 2))
"""


def test_a_file_adds_a_data_set(registered, tmp_path, monkeypatch):
    (tmp_path / "settings.ini").touch()
    (tmp_path / "nbs/extensions").mkdir(parents=True)
    (tmp_path / "nbs/extensions/extended_set.py").write_text(EXTENSION)
    monkeypatch.chdir(tmp_path)
    assert [len(s) for s in load_data("extended").splits.values()] == [20, 5, 5]


@pytest.mark.parametrize("change,message", [
    (dict(images=torch.rand(4, 2, 2)), r"train of toy: images \(4, 2, 2\)"),
    (dict(images=torch.zeros(4, 1, 2, 2, dtype=torch.int16)), "expected .* of torch.float32"),
    (dict(images=255 * torch.ones(4, 1, 2, 2)), r"values in \[0, 1\]"),
    (dict(images=torch.full((4, 1, 2, 2), torch.nan)), r"values in \[0, 1\]"),
    (dict(images=torch.rand(0, 1, 2, 2), labels=torch.arange(0)), "at least one image"),
    (dict(labels=torch.tensor([0, 1, 2, 0])), "label in 0 to 1 for each of 4 images"),
    (dict(labels=torch.zeros(4)), "an int64 label"), (dict(labels=torch.zeros(3).long()), "for each of 4 images"),
    (dict(groups=(0,)), "groups of toy has length 1: expected 2")])
def test_wrong_data_is_refused(change, message):
    parts = {"images": torch.rand(4, 1, 2, 2), "labels": torch.tensor([0, 1, 0, 1]), "groups": (0, 1)}
    check_data(toy(**parts))
    with pytest.raises(ValueError, match=message): check_data(toy(**(parts | change)))


def toy(images, labels, groups):
    return ImageData("toy", *[Split(images, labels)] * 3, ("a", "b"), groups)


@pytest.mark.parametrize("name", ["mnist", "fmnist", "combined"])
def test_missing_without_network(name, tmp_path):
    with pytest.raises(FileNotFoundError, match="could not be downloaded.*idx files.*digits"):
        load_data(name, tmp_path, download=False)


@pytest.mark.parametrize("damage", ["cut", "empty", "gz"])
@needs_mnist
def test_damaged_mnist_file(tmp_path, damage):
    shutil.copytree(RAW / "MNIST", tmp_path / "MNIST")
    raw = tmp_path / "MNIST/raw"
    for gz in raw.glob("*.gz"): gz.unlink()
    labels = raw / "t10k-labels-idx1-ubyte"
    if damage == "gz":
        for f in list(raw.iterdir()):
            cut = gzip.compress(f.read_bytes(), 1)[:-20] if f == labels else gzip.compress(f.read_bytes()[:8], 1)
            (raw / f"{f.name}.gz").write_bytes(cut)
            f.unlink()
    else: labels.write_bytes(labels.read_bytes()[:500] if damage == "cut" else b"")
    with pytest.raises(ValueError, match="truncated or damaged|is damaged.*delete it"):
        load_data("mnist", tmp_path, download=False)


def test_folder_of_images(tmp_path):
    data = load_data("folder", folder_of(tmp_path))
    assert data.class_names == ("cat", "dog") and data.image_shape == (1, 6, 8)
    assert [len(s) for s in data.splits.values()] == [24, 3, 3]
    assert load_data("folder", folder_of(tmp_path / "rgb", mode="RGB"), size=(9, 7)).image_shape == (3, 9, 7)


def test_flat_folder_is_one_class(tmp_path):
    for i in range(12): Image.new("L", (4, 4), i).save(tmp_path / f"{i}.png")
    assert load_data("folder", tmp_path).class_names == ("image",)


def test_folder_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match="expected a folder of images"):
        load_data("folder", tmp_path / "nothing")
    with pytest.raises(ValueError, match="at least 10 images.*found 0"): load_data("folder", tmp_path)
    folder_of(tmp_path)
    odd = tmp_path / "dog" / "zz.png"
    Image.new("L", (9, 9)).save(odd)
    with pytest.raises(ValueError, match=r"zz.png has size \(9, 9\).*resize them, or pass size"):
        load_data("folder", tmp_path)
    odd.write_bytes(b"not a picture")
    with pytest.raises(ValueError, match="zz.png: expected a readable image"): load_data("folder", tmp_path)


GREYS = np.linspace(0, 1, 256).reshape(16, 16)


def grey_in_a_palette():
    image = Image.fromarray((GREYS * 255).astype(np.uint8)).convert("P")
    image.putdata(list(range(256)))
    image.putpalette([v for g in range(256) for v in (g, g, g)])
    return image


def on_its_side(suffix):
    turned = Image.Exif()
    turned[0x0112] = 6
    return dict(image=Image.fromarray((GREYS * 255).astype(np.uint8)).transpose(Image.Transpose.ROTATE_90), exif=turned)


def drawn_on_nothing(mode):
    clear = Image.new(mode, (16, 16))
    clear.putalpha(Image.fromarray(255 - (GREYS * 255).astype(np.uint8)))
    return clear


WAYS = {
    "8 bits": dict(image=Image.fromarray((GREYS * 255).astype(np.uint8))),
    "16 bits": dict(image=Image.fromarray((GREYS * 65535).astype(np.uint16))),
    "16 bits, TIFF": dict(image=Image.fromarray((GREYS * 65535).astype(np.uint16)), suffix="tif"),
    "16 bits, PGM": dict(image=Image.fromarray((GREYS * 65535).astype(np.uint16)), suffix="pgm"),
    "floats": dict(image=Image.fromarray(GREYS.astype(np.float32)), suffix="tif"),
    "colour with equal channels": dict(image=Image.fromarray((GREYS * 255).astype(np.uint8)).convert("RGB")),
    "CMYK": dict(image=Image.fromarray((GREYS * 255).astype(np.uint8)).convert("RGB").convert("CMYK"), suffix="tif"),
    "grey with alpha": dict(image=Image.fromarray((GREYS * 255).astype(np.uint8)).convert("LA")),
    "palette": dict(image=grey_in_a_palette()), "palette, GIF": dict(image=grey_in_a_palette(), suffix="gif"),
    "ink on a transparent ground": dict(image=drawn_on_nothing("RGBA")),
    "grey ink on a transparent ground": dict(image=drawn_on_nothing("LA")),
    "on its side, PNG": on_its_side("png"), "on its side, TIFF": on_its_side("tif") | {"suffix": "tif"}}


@pytest.mark.parametrize("way", WAYS)
def test_a_picture_is_read_as_a_viewer_shows_it(way, tmp_path):
    options = dict(suffix="png") | WAYS[way]
    image, suffix = options.pop("image"), options.pop("suffix")
    for i in range(10): image.save(tmp_path / f"{i}.{suffix}", **options)
    images = load_data("folder", tmp_path).train.images
    assert images.shape[1:] == (1, 16, 16) and np.abs(images[0, 0].numpy() - GREYS).max() < 0.005
    assert np.abs(load_data("folder", tmp_path, size=32).train.images[0, 0, ::2, ::2].numpy() - GREYS).max() < 0.05


@pytest.mark.parametrize("image,message", [
    (Image.fromarray(np.full((16, 16), 70_000, np.int32)), "values from 70000 to 70000 of Pillow's mode 'I'"),
    (Image.fromarray(np.full((16, 16), 1.5, np.float32)), "expected 8 or 16 bits, or floats in"),
    (Image.fromarray(np.full((16, 16), np.nan, np.float32)), "values from nan to nan")])
def test_pixels_of_unknown_white_are_refused(image, message, tmp_path):
    for i in range(10): image.save(tmp_path / f"{i}.tif")
    with pytest.raises(ValueError, match=rf"0.tif: .*{message}|0.tif: {message}"): load_data("folder", tmp_path)


def test_a_huge_scan_is_named(tmp_path, monkeypatch):
    folder_of(tmp_path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    with pytest.raises(ValueError, match="000.png: expected a readable image.*bomb"): load_data("folder", tmp_path)


def test_pictures_that_move_are_told(tmp_path):
    frames = [Image.new("L", (4, 4), 60 * i) for i in range(3)]
    for i in range(10): frames[0].save(tmp_path / f"{i}.gif", save_all=True, append_images=frames[1:])
    with pytest.warns(UserWarning, match="10 files hold several pictures, and only the first was read: 0.gif"):
        assert load_data("folder", tmp_path).train.images.max() == 0


def test_hidden_folders_count_nowhere(tmp_path):
    folder_of(tmp_path, 12)
    for hidden in (".ipynb_checkpoints", "cat/.thumbnails", "__MACOSX/cat"):
        folder_of(tmp_path / hidden, 2, classes=("a",))
    assert [*load_data("folder", tmp_path).class_names] == ["cat", "dog"]


def test_links_are_followed_and_circles_end(tmp_path):
    folder_of(tmp_path / "set", 12, classes=("cat",))
    folder_of(tmp_path / "disk", 12, classes=("any",))
    (tmp_path / "set/dog").symlink_to(tmp_path / "disk/any")
    (tmp_path / "set/one.png").symlink_to(tmp_path / "set/cat/000.png")
    (tmp_path / "set/cat/round").symlink_to(tmp_path / "set")
    data = load_data("folder", tmp_path / "set")
    assert data.class_names == ("cat", "dog", "image") and sum(map(len, data.splits.values())) == 25


def test_files_that_are_left_out_are_told(tmp_path):
    folder_of(tmp_path, 12, classes=("cat",))
    (tmp_path / "dog").mkdir()
    for i in range(3): (tmp_path / "dog" / f"{i}.heic").touch()
    (tmp_path / "Thumbs.db").touch()
    with pytest.warns(UserWarning, match=r"left out 3 files that .* \(3 .heic\), such as dog/0.heic"):
        load_data("folder", tmp_path)


@pytest.mark.parametrize("outer,told", [("all", "all"), ("train", "train"), ("all/train", "all"), ("", None)])
def test_folders_around_the_classes(outer, told, tmp_path, recwarn):
    folder_of(tmp_path / outer)
    assert load_data("folder", tmp_path).class_names == ("cat", "dog")
    said = " ".join(str(w.message) for w in recwarn)
    assert bool(said) == bool(told) and (not told or f"the folders {told} are taken for no" in said)


def test_given_splits_are_joined(tmp_path):
    for split in ("train", "Test"): folder_of(tmp_path / split, 10)
    with pytest.warns(UserWarning, match="Test, train are taken for no classes.*split anew"):
        assert load_data("folder", tmp_path).class_names == ("cat", "dog")


def test_a_folder_may_end_like_a_file(tmp_path):
    assert load_data("folder", folder_of(tmp_path, classes=("a.png", "b"))).class_names == ("a.png", "b")


def test_a_name_that_is_no_text_is_refused(tmp_path):
    folder_of(tmp_path)
    shutil.copy(tmp_path / "cat/000.png", bytes(tmp_path / "cat") + b"/caf\xe9.png")
    with pytest.raises(ValueError, match=r"xe9.png': expected a file name in UTF-8"): load_data("folder", tmp_path)


def idx(path, values):
    values = np.asarray(values, np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    sizes = b"".join(n.to_bytes(4, "big") for n in values.shape)
    path.write_bytes(bytes([0, 0, 8, values.ndim]) + sizes + values.tobytes())


@pytest.mark.parametrize("images,labels,message", [
    (6000, np.arange(5999) % 10, "5,999 labels for 6,000 images"),
    (6000, np.full(6000, 77), "an int64 label in 0 to 9"),
    (100, np.arange(100) % 10, "n=5000: expected fewer than the 100 images")])
def test_idx_files_that_do_not_fit(images, labels, message, tmp_path):
    for part, n, y in (("train", images, labels), ("t10k", 20, np.arange(20) % 10)):
        idx(tmp_path / f"MNIST/raw/{part}-images-idx3-ubyte", np.zeros((n, 28, 28)))
        idx(tmp_path / f"MNIST/raw/{part}-labels-idx1-ubyte", y)
    with pytest.raises(ValueError, match=message): load_data("mnist", tmp_path, download=False)


def test_images_and_labels_swapped(tmp_path):
    for part in ("train", "t10k"):
        idx(tmp_path / f"MNIST/raw/{part}-images-idx3-ubyte", np.arange(20) % 10)
        idx(tmp_path / f"MNIST/raw/{part}-labels-idx1-ubyte", np.zeros((20, 28, 28)))
    with pytest.raises(ValueError, match="images-idx3-ubyte is truncated or damaged"):
        load_data("mnist", tmp_path, download=False)


def test_a_pipe_is_no_image(tmp_path):
    Image.new("L", (4, 4)).save(tmp_path / "a.png")
    os.mkfifo(tmp_path / "b.png")
    assert [p.name for p in image_files(tmp_path)] == ["a.png"]
    with pytest.raises(ValueError, match="b.png: expected a file"): read_image(tmp_path / "b.png")


@pytest.mark.parametrize("name, form", [("a.png", "PNG"), ("a.jpg", "MPO"), ("a.gif", "GIF")])
def test_more_pictures_in_one_file_are_told(tmp_path, name, form):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("white", "red", "blue")]
    frames[0].save(tmp_path / name, form, save_all=True, append_images=frames[1:])
    with pytest.warns(UserWarning, match="only the first was read: a"): read_images([tmp_path / name])


def test_twelve_bits_in_sixteen_are_told(tmp_path):
    ramp = np.linspace(0, 4095, 64).astype(np.uint16).reshape(8, 8)
    Image.fromarray(ramp).save(tmp_path / "scan.png")
    with pytest.warns(UserWarning, match="brightest pixel of 1 images is 6.2% of white"):
        read_images([tmp_path / "scan.png"])


def test_a_class_that_links_to_another_is_told(tmp_path):
    (tmp_path / "a").mkdir()
    Image.new("L", (4, 4), 255).save(tmp_path / "a" / "x.png")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.warns(UserWarning, match="2 names lead to one file"):
        assert len(image_files(tmp_path)) == 2
