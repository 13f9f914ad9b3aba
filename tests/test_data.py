"Data sets: splits, hashes, and every way a file can be missing or wrong."
import gzip
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from creative_nb.core import repo_root
from creative_nb.data import load_data

RAW = repo_root() / "data/raw"
needs_mnist = pytest.mark.skipif(not (RAW / "MNIST/raw").is_dir(), reason="real MNIST is not in data/raw")
needs_both = pytest.mark.skipif(not all((RAW / s / "raw").is_dir() for s in ("MNIST", "FashionMNIST")), reason="real MNIST and FashionMNIST are not in data/raw")


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
    assert sorted(i.numpy().tobytes() for s in data.splits.values() for i in s.images) == sorted(i.numpy().tobytes() for s in other.splits.values() for i in s.images)
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
    assert torch.equal(both.train_groups.bincount(), torch.tensor([55_000, 55_000])) and torch.equal(mnist.train_groups, mnist.train.labels)


def test_unknown_name():
    with pytest.raises(ValueError, match="name='cifar10': expected one of digits, mnist"): load_data("cifar10")


@pytest.mark.parametrize("name", ["mnist", "fmnist", "combined"])
def test_missing_without_network(name, tmp_path):
    with pytest.raises(FileNotFoundError, match="could not be downloaded.*idx files.*digits"): load_data(name, tmp_path, download=False)


@pytest.mark.parametrize("damage", ["cut", "empty", "gz"])
@needs_mnist
def test_damaged_mnist_file(tmp_path, damage):
    shutil.copytree(RAW / "MNIST", tmp_path / "MNIST")
    raw = tmp_path / "MNIST/raw"
    for gz in raw.glob("*.gz"): gz.unlink()
    labels = raw / "t10k-labels-idx1-ubyte"
    if damage == "gz":
        for f in list(raw.iterdir()):
            (raw / f"{f.name}.gz").write_bytes(gzip.compress(f.read_bytes(), 1)[:-20] if f == labels else gzip.compress(f.read_bytes()[:8], 1))
            f.unlink()
    else: labels.write_bytes(labels.read_bytes()[:500] if damage == "cut" else b"")
    with pytest.raises(ValueError, match="truncated or damaged|is damaged.*delete it"): load_data("mnist", tmp_path, download=False)


def test_folder_of_images(tmp_path):
    data = load_data("folder", folder_of(tmp_path))
    assert data.class_names == ("cat", "dog") and data.image_shape == (1, 6, 8) and [len(s) for s in data.splits.values()] == [24, 3, 3]
    assert load_data("folder", folder_of(tmp_path / "rgb", mode="RGB"), size=(9, 7)).image_shape == (3, 9, 7)


def test_flat_folder_is_one_class(tmp_path):
    for i in range(12): Image.new("L", (4, 4), i).save(tmp_path / f"{i}.png")
    assert load_data("folder", tmp_path).class_names == ("image",)


def test_folder_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder"): load_data("folder", tmp_path / "nothing")
    with pytest.raises(ValueError, match="at least 10 images.*found 0"): load_data("folder", tmp_path)
    folder_of(tmp_path)
    odd = tmp_path / "dog" / "zz.png"
    Image.new("L", (9, 9)).save(odd)
    with pytest.raises(ValueError, match=r"zz.png has size \(9, 9\).*resize them, or pass size"): load_data("folder", tmp_path)
    odd.write_bytes(b"not a picture")
    with pytest.raises(ValueError, match="zz.png is not a readable image"): load_data("folder", tmp_path)
