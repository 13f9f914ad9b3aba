"Colour pictures: sets that are kept as bytes, and files that are missing or wrong."
import numpy as np
import pytest
import torch
from PIL import Image

from creative_nb.data import ImageData, Split, check_data, load_data
from creative_nb.images import as_float
from creative_nb.models import VAE
from creative_nb.neighbours import NearestNeighbours
from creative_nb.novelty import Novelty
from creative_nb.training import Schedule, Trainer, evaluate, fresh


def in_floats(data: ImageData) -> ImageData:
    parts = (Split(as_float(s.images), s.labels) for s in data.splits.values())
    return ImageData(data.name, *parts, data.class_names, data.groups)


@pytest.fixture(scope="module")
def blobs(): return load_data("blobs")


def test_blobs_are_colour_bytes_of_four_classes(blobs):
    check_data(blobs)
    assert blobs.image_shape == (3, 64, 64) and blobs.train.images.dtype == torch.uint8 and "code" in blobs.about
    assert sum(torch.bincount(s.labels) for s in blobs.splits.values()).tolist() == [150] * 4
    assert load_data("blobs", split_seed=1).content_hash != blobs.content_hash != in_floats(blobs).content_hash


def test_hair_tells_the_class(blobs):
    "The darkest class is black, the brightest blond, by the pixels above the face."
    top = as_float(blobs.train.images)[:, :, 14:18, 26:38].mean((1, 2, 3))
    means = [top[blobs.train.labels == k].mean().item() for k in range(4)]
    assert np.argmin(means) == 0 and np.argmax(means) == 2


def test_bytes_train_the_network_that_floats_train(blobs):
    trained = [Trainer(fresh(VAE, {"image_shape": (3, 64, 64), "hidden": (16,), "latent": 4}, 0), data,
                       Schedule(epochs=2)).fit() for data in (blobs, in_floats(blobs))]
    for a, b in zip(*(t.model.parameters() for t in trained)): assert a.equal(b)
    assert evaluate(trained[0].model, blobs.test) == evaluate(trained[0].model, in_floats(blobs).test)


def test_novelty_of_bytes_is_that_of_floats(blobs, tmp_path):
    train, test, floats = blobs.train.images, blobs.test.images, as_float(blobs.train.images)
    a, b = Novelty().fit(train), Novelty().fit(floats)
    assert a.input_neighbours_.reference.dtype == torch.uint8
    for name, value in a.score(test).items(): torch.testing.assert_close(value, b.score(as_float(test))[name])
    a.save(tmp_path / "n.safetensors")
    again = Novelty.load(tmp_path / "n.safetensors", images=train)
    assert again.score(test)["input_1nn"].equal(a.score(test)["input_1nn"])
    with pytest.raises(ValueError, match="not the training images"):
        Novelty.load(tmp_path / "n.safetensors", images=floats)


def test_wide_rows_are_compared_block_by_block(monkeypatch):
    "A block of bytes becomes floats at a time; the neighbours do not depend on its size."
    points = torch.randint(0, 256, (300, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    whole = NearestNeighbours(points).query(as_float(points[:50]), 4)
    monkeypatch.setattr(NearestNeighbours, "elements", 1000)
    parts = NearestNeighbours(points).query(as_float(points[:50]), 4)
    assert parts[1].equal(whole[1]) and (parts[0][:, 0] == 0).all()
    torch.testing.assert_close(parts[0], whole[0])
    duplicates = NearestNeighbours(torch.cat([points, points]))
    assert len(duplicates) == 300 and (duplicates.within(1) > 0).all()


def celeba_of(folder, n):
    folder.mkdir(parents=True)
    for i in range(n): Image.new("RGB", (3, 4), (i % 256, i // 256, 0)).save(folder / f"{i + 1:06}.jpg")


@pytest.mark.parametrize("place", ["celeba/img_align_celeba", "celeba", "."])
def test_celeba_is_found_in_every_layout(tmp_path, place):
    celeba_of(tmp_path / "raw" / place if place != "." else tmp_path / "raw", 2000)
    data = load_data("celeba", tmp_path / "raw")
    assert [len(s) for s in data.splits.values()] == [500, 500, 1000] and data.class_names == ("face",)
    assert data.about == "CelebA: 2,000 of 202,599 images, a subset; for non-commercial research only"


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="img_align_celeba.*1.4 GB.*non-commercial.*'blobs'"):
        load_data("celeba", tmp_path)
    with pytest.raises(FileNotFoundError, match="labels.csv.*25 GB.*non-commercial.*'blobs'"):
        load_data("wikiart", tmp_path)
    celeba_of(tmp_path / "few", 20)
    with pytest.raises(ValueError, match="expected 2,000 photographs of CelebA or more, found 20"):
        load_data("celeba", tmp_path / "few")


def paintings_of(folder, rows, n=120):
    folder.mkdir()
    (folder / "labels.csv").write_text("\n".join(rows))
    for i in range(n): Image.new("RGB", (70 + i % 9, 90), (i, 60, 60)).save(folder / f"{i}.png")
    return folder


def test_genres_that_are_rare_are_other(tmp_path):
    rows = [f"{i}.png,{'ab'[i % 2]},{'landscape' if i < 95 else ''}" for i in range(120)]
    data = load_data("wikiart", paintings_of(tmp_path / "art", ["file,artist,genre", *rows]))
    assert data.class_names == ("landscape", "other") and [len(s) for s in data.splits.values()] == [102, 6, 12]
    assert data.about == "WikiArt: 120 paintings of 2 artists, a subset; for non-commercial research only"


@pytest.mark.parametrize("rows, message", [
    (["file,artist", "0.png,a"], "expected rows with genre"), (["file,artist,genre"], "expected rows"),
    (["file,artist,genre", "0.png,a,b", "none.png,a,b"], "names 1 files that are not there, such as none.png"),
    (["file,artist,genre", "0.png,a,b"], "expected 100 paintings or more, found 1")])
def test_wrong_tables_of_paintings(tmp_path, rows, message):
    with pytest.raises(ValueError, match=message): load_data("wikiart", paintings_of(tmp_path / "art", rows, 1))
