"Generators out of wheels: the network follows from the shapes of its tensors, and only the file that is meant is read."
import io
import zipfile
from dataclasses import replace

import pytest
import torch

from creative_nb.das2020 import off_the_shelf
from creative_nb.das2020.off_the_shelf import DCGAN, PACKAGES, from_shelf, stand_in, weights_in, wheel
from creative_nb.das2020.paintings import change_numbers, half_area, random_features


def packed(path, weights):
    content = io.BytesIO()
    torch.save({"inner": weights}, content)
    with zipfile.ZipFile(path, "w") as z: z.writestr("a/weights.tar", content.getvalue())


def test_a_network_from_a_wheel(tmp_path):
    "Numbers of the modules as in the file, a place without tensors is a dropout, and a ReLU after each BatchNorm."
    weights = stand_in((8, 6), latent=5)
    moved = {name.replace("main.3", "main.4").replace("main.6", "main.7"): v for name, v in weights.items()
             if "main.4" not in name}
    moved |= {name.replace("main.4", "main.5"): v for name, v in weights.items() if "main.4" in name}
    packed(tmp_path / "a-1-py3-none-any.whl", moved)
    package = replace(PACKAGES["synthetic-faces"], weights="a/weights.tar", key="inner")
    model = DCGAN(weights_in(tmp_path / "a-1-py3-none-any.whl", package), 2).eval()
    kinds = ["ConvTranspose2d", "BatchNorm2d", "ReLU"]
    assert [type(m).__name__ for m in model.main] == [*kinds, "Identity", *kinds, "ConvTranspose2d", "Tanh"]
    images = [model(torch.zeros(1, 3), torch.tensor([k])) for k in (0, 1)]
    assert images[0].shape == (1, 3, 16, 16) and not torch.equal(*images)


def test_another_file_is_refused_and_no_network_is_no_error(tmp_path, monkeypatch):
    package = PACKAGES["painted-eyes"]
    monkeypatch.setattr(off_the_shelf.subprocess, "run", lambda *a, **k: None)
    assert wheel(package, tmp_path) is None and from_shelf("painted-eyes", tmp_path) is None
    (tmp_path / package.wheel).write_bytes(b"something else")
    with pytest.raises(ValueError, match="another file than the one this was written for"): wheel(package, tmp_path)
    with pytest.raises(ValueError, match="name='none': expected stand-in or one of painted-eyes, synthetic-faces"):
        from_shelf("none", tmp_path)


def test_where_a_picture_changes():
    regular = torch.zeros(2, 3, 10, 10)
    images = regular.clone()
    images[0, :, :2, :5] = 0.5
    images[1] += 0.01
    assert half_area(images - regular).tolist() == pytest.approx([0.05, 0.5])
    found = change_numbers(regular, images)
    assert found["moved_pixels"] == pytest.approx(0.05)
    assert found["change"] == pytest.approx((30**0.5 / 2 + 0.01 * 300**0.5) / 2)


def test_random_features_are_the_same_for_bytes():
    images = torch.randint(0, 256, (5, 3, 16, 16), dtype=torch.uint8)
    assert torch.allclose(random_features(images), random_features(images / 255), atol=1e-6)
    assert random_features(images).shape == (5, 72)
