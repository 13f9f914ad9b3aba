"""The small BigGAN, its training, and the loader of BigGAN's files against a second implementation in NumPy."""
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import softmax

from creative_nb.adversarial import AdversarialTrainer, GANSchedule
from creative_nb.biggan import ResidualDiscriminator, SmallBigGAN, without_spectral_norm
from creative_nb.biggan_files import biggan_layout, full_layout, load_biggan, random_state
from creative_nb.core import repo_root
from creative_nb.data import ImageData, Split
from creative_nb.experiment import Run
from creative_nb.gan_files import trained_gan
from creative_nb.models import load_model
from creative_nb.training import fresh

SIZES = {"image_shape": (1, 8, 8), "classes": 3, "widths": (8, 8), "latent": 8, "embedding": 4}
SCHEDULE = GANSchedule(steps=6, batch_size=8, beta1=0.0, loss="hinge", augment=(), flips=False, shift=0)


def small_data():
    random = torch.Generator().manual_seed(0)
    split = lambda n: Split(torch.rand(n, 1, 8, 8, generator=random), torch.randint(3, (n,), generator=random))
    return ImageData("noise", split(60), split(10), split(10), ("a", "b", "c"), (0, 1, 2))


def networks():
    own = {"image_shape": (1, 8, 8), "classes": 3, "widths": (8, 8)}
    return fresh(SmallBigGAN, SIZES, 0), fresh(ResidualDiscriminator, own, 0)


def test_spectral_normalisation_bounds_every_layer_but_the_table():
    generator, discriminator = networks()
    z, labels = torch.randn(16, 8), torch.arange(16) % 3
    for _ in range(60): generator.train()(z, labels), discriminator.train()(torch.rand(16, 1, 8, 8), labels)
    for model in (generator, discriminator):
        for name, m in without_spectral_norm(model).named_modules():
            if not hasattr(m, "weight") or m.weight is None or m.weight.ndim < 2: continue
            largest = torch.linalg.matrix_norm(m.weight.flatten(1), 2).item()
            table = isinstance(m, torch.nn.Embedding) and model is generator  # orthogonal, and left alone
            assert largest == pytest.approx(1, abs=1e-4 if table else 0.02), name
    assert torch.equal(generator.shared.weight, without_spectral_norm(generator).shared.weight)


def test_the_class_changes_images_and_only_through_the_table():
    generator = networks()[0].eval()
    z = torch.randn(5, 8)
    with torch.no_grad():
        a, b = (generator(z, torch.full((5,), k)) for k in (0, 1))
        generator.shared.weight[1] = generator.shared.weight[0]
        assert not torch.equal(a, b) and torch.equal(generator(z, torch.ones(5, dtype=torch.int64)), a)


def test_an_interrupted_training_ends_the_same(tmp_path):
    data, path = small_data(), tmp_path / "gan.state.safetensors"
    whole = AdversarialTrainer(*networks(), data, SCHEDULE, look_every=6).fit()
    stopped = AdversarialTrainer(*networks(), data, SCHEDULE, state=path, save_every=0, look_every=6)
    for _ in range(3): stopped._step()
    stopped._save()
    resumed = AdversarialTrainer(*networks(), data, SCHEDULE, state=path, look_every=6).fit()
    for part in ("average", "discriminator"):
        states = [getattr(t, part).state_dict() for t in (whole, resumed)]
        assert all(torch.equal(states[0][k], states[1][k]) for k in states[0]), part


def test_snapshots_are_the_average_at_that_step(tmp_path):
    files = {step: tmp_path / f"{step}.safetensors" for step in (2, 6)}
    trainer = AdversarialTrainer(*networks(), small_data(), SCHEDULE, look_every=6, snapshots=files).fit()
    kept = {step: load_model(f) for step, f in files.items()}
    assert [m.about["step"] for m in kept.values()] == [2, 6]
    weight = lambda m: m.state_dict()["shared.weight"]
    assert torch.allclose(weight(kept[6]), weight(trainer.average), atol=1e-3)
    assert not torch.equal(weight(kept[2]), weight(kept[6]))


def test_a_generator_of_another_class_is_trained_into_its_own_file(tmp_path):
    asked = dict(artifacts=str(tmp_path), checkpoints="",
                 generator={"model": "SmallBigGAN", "widths": [8, 8], "latent": 8},
                 discriminator={"model": "ResidualDiscriminator", "widths": [8, 8]})
    path = trained_gan(small_data(), SCHEDULE, **asked)
    assert path.name.startswith("noise_smallbiggan_") and isinstance(load_model(path), SmallBigGAN)
    beside = load_model(path.with_name(path.stem + "_discriminator.safetensors"))
    assert isinstance(beside, ResidualDiscriminator)
    assert trained_gan(small_data(), replace(SCHEDULE, beta2=0.9), **asked) != path
    with pytest.raises(ValueError, match="expected one of"):
        trained_gan(small_data(), SCHEDULE, generator={"model": "Other"})


def spectral(state, name):
    "A weight as BigGAN uses it: divided by an estimate of its largest singular value, one step from the stored vector."
    w, u = state[f"{name}.weight"].numpy().astype(float), state[f"{name}.u0"].numpy().astype(float)
    flat = w.reshape(len(w), -1)
    v = u @ flat / np.linalg.norm(u @ flat)
    u = v @ flat.T / np.linalg.norm(v @ flat.T)
    return w / (u @ flat @ v.T).item()


def convolved(x, w, b=None):
    "Plain convolution with as many pixels out as in, by shifted products."
    k = w.shape[2]
    padded = np.pad(x, ((0, 0), (0, 0), (k // 2,) * 2, (k // 2,) * 2))
    out = sum(np.einsum("oc,nchw->nohw", w[:, :, i, j], padded[:, :, i:i + x.shape[2], j:j + x.shape[3]])
              for i in range(k) for j in range(k))
    return out if b is None else out + b.numpy()[None, :, None, None]


def normalised(state, name, x, y, eps):
    mean, var = (state[f"{name}.stored_{p}"].numpy()[None, :, None, None] for p in ("mean", "var"))
    gain, bias = (y @ spectral(state, f"{name}.{p}").T for p in ("gain", "bias"))
    return (x - mean) / np.sqrt(var + eps) * (1 + gain)[:, :, None, None] + bias[:, :, None, None]


def doubled(x): return x.repeat(2, axis=2).repeat(2, axis=3)


def attended(state, name, x):
    n, c, h, w = x.shape
    theta, phi, g = (convolved(x, spectral(state, f"{name}.{p}")) for p in ("theta", "phi", "g"))
    pooled = lambda a: a.reshape(n, -1, h // 2, 2, w // 2, 2).max((3, 5)).reshape(n, a.shape[1], -1)
    beta = softmax(np.einsum("ncq,nck->nqk", theta.reshape(n, -1, h * w), pooled(phi)), axis=2)
    seen = np.einsum("nck,nqk->ncq", pooled(g), beta).reshape(n, -1, h, w)
    return x + state[f"{name}.gamma"].item() * convolved(seen, spectral(state, f"{name}.o"))


def generated(state, z, y, eps):
    "BigGAN's forward pass, written from its description, in NumPy."
    chunk = state["linear.weight"].shape[1]
    z, y = z.numpy().astype(float), y.numpy().astype(float)
    parts = [z[:, i:i + chunk] for i in range(0, z.shape[1], chunk)]
    h = parts[0] @ spectral(state, "linear").T + state["linear.bias"].numpy()
    h = h.reshape(len(z), -1, 4, 4)
    for i, part in enumerate(parts[1:]):
        name, condition = f"blocks.{i}.0", np.concatenate([y, part], 1)
        a = doubled(np.maximum(normalised(state, f"{name}.bn1", h, condition, eps), 0))
        a = convolved(a, spectral(state, f"{name}.conv1"), state[f"{name}.conv1.bias"])
        a = np.maximum(normalised(state, f"{name}.bn2", a, condition, eps), 0)
        a = convolved(a, spectral(state, f"{name}.conv2"), state[f"{name}.conv2.bias"])
        h = a + convolved(doubled(h), spectral(state, f"{name}.conv_sc"), state[f"{name}.conv_sc.bias"])
        if f"blocks.{i}.1.gamma" in state: h = attended(state, f"blocks.{i}.1", h)
    parts = ("gain", "bias", "stored_mean", "stored_var")
    gain, bias, mean, var = (state[f"output_layer.0.{p}"].numpy()[None, :, None, None] for p in parts)
    h = np.maximum((h - mean) / np.sqrt(var + 1e-5) * gain + bias, 0)
    return np.tanh(convolved(h, spectral(state, "output_layer.2"), state["output_layer.2.bias"]))


@pytest.mark.parametrize("eps", [1e-5, 1e-2])
def test_a_loaded_biggan_is_the_network_of_the_file(tmp_path, eps):
    state = random_state(attention=1)
    state["blocks.1.1.gamma"] = torch.tensor(0.7)
    saved = {f"module.{k}": v for k, v in state.items()} | {"module.linear.sv0": torch.ones(1)}
    torch.save(saved, tmp_path / "G_ema.pth")
    generator = load_biggan(tmp_path / "G_ema.pth", eps)
    z, y = generator.latents(3, 0), generator.embeddings[torch.tensor([0, 4, 2])]
    expected = (generated(state, z, y, eps) + 1) / 2
    with torch.no_grad(): images = generator(z, y).numpy()
    assert images.std() > 0.1 and np.abs(images - expected).max() < 1e-5


@pytest.mark.parametrize("side", [128, 256])
def test_layouts_of_the_public_files(side):
    path = repo_root().parent / "shared" / "facts" / f"biggan{side}_layout.json"
    if not path.is_file(): pytest.skip("no layout of the public file at hand")
    known = {k: tuple(v) for k, v in json.loads(Path(path).read_text()).items() if not k.endswith("sv0")}
    ours = full_layout(side)
    assert ours == {k: v if k in ours and ours[k] else () for k, v in known.items()}


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "G.pth"
    with pytest.raises(FileNotFoundError, match="ajbrock/BigGAN-PyTorch.*shared.weight"): load_biggan(path)
    torch.save({"state_dict_optim": torch.zeros(3)}, path)
    with pytest.raises(ValueError, match="no shared.weight.*not G_optim"): load_biggan(path)
    state = random_state()
    torch.save({k: v for k, v in state.items() if k != "blocks.2.1.gamma"}, path)
    load_biggan(path)  # without attention it is another network of the family
    torch.save(state | {"blocks.1.0.conv1.weight": torch.zeros(1, 2, 3, 3)}, path)
    with pytest.raises(ValueError, match="blocks.1.0.conv1.weight is .*expected"): load_biggan(path)
    assert biggan_layout((8, 8), -1, 3, 2, 2)["shared.weight"] == (3, 2)


def test_the_committed_generator_serves():
    "The record of the files is that of the declared training, and the discriminator lies beside."
    if not (repo_root() / "data/raw/FashionMNIST").is_dir(): pytest.skip("FashionMNIST is not in data/raw")
    networks = Run("li2020", "fmnist", "paper").networks
    assert networks.gan_path() == repo_root() / "data/checkpoints/fmnist_smallbiggan.safetensors"
    assert networks.path("optimised") == repo_root() / "data/checkpoints/fmnist_optimised.safetensors"
    z, labels = networks.gan.latents(200, 5), torch.arange(200) % 10
    with torch.no_grad():
        images = networks.gan(z, networks.gan.embeddings[labels])
        right = (networks.classifier(images).argmax(1) == labels).double().mean()
        test = networks.data.test
        scores = [networks.discriminator(x, k) for x, k in ((test.images[:200], test.labels[:200]), (images, labels))]
    assert right > 0.8 and scores[0].mean() > scores[1].mean(), "real images score higher than generated ones"
