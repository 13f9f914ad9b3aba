"The diffusion model, creative decoding in layers that run many times, and amplified features."
import builtins
import sys
from copy import copy
from dataclasses import replace

import pytest
import torch

from creative_nb.amplify import Amplified, down_and_mid, low_pass
from creative_nb.core import standard_normal
from creative_nb.data import Split, load_data
from creative_nb.decode import THIRDS, CreativeDecoder, LowActive
from creative_nb.diffusion import Diffusion, rotate, unet_class
from creative_nb.layers import suggest_layers
from creative_nb.models import load_model, save_model
from creative_nb.training import Schedule, Trainer, fresh

LAYER = "unet.mid_block.resnets.1.dropout"


@pytest.fixture(scope="module")
def model() -> Diffusion:
    pytest.importorskip("diffusers")
    diffusion = fresh(Diffusion, {"widths": [8], "patch_size": 4}, seed=0).eval()
    diffusion.steps = 6
    return diffusion


@pytest.fixture(scope="module")
def z() -> torch.Tensor: return standard_normal(40, (1, 28, 28), seed=1)


@pytest.fixture(scope="module")
def decoder(model, z) -> CreativeDecoder:
    with pytest.warns(UserWarning, match="fitted to 40 latents"):
        return CreativeDecoder(model, LAYER, threshold="0.2max").fit(z)


@pytest.fixture(scope="module")
def plain(model, z) -> torch.Tensor:
    with torch.no_grad(): return model(z)


def test_the_library_says_which_extra_is_missing(monkeypatch):
    real = builtins.__import__
    def without(name, *args, **kwargs):
        if name.split(".")[0] == "diffusers": raise ImportError("No module named 'diffusers'")
        return real(name, *args, **kwargs)
    monkeypatch.delitem(sys.modules, "diffusers", raising=False)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"\[diffusion\]"): unet_class()
    with pytest.raises(ImportError, match=r"\[diffusion\]"): Diffusion()


def test_turning_a_pair_and_back():
    x, y, t = torch.randn(5, 1, 4, 4), torch.randn(5, 1, 4, 4), torch.rand(5)
    torch.testing.assert_close(rotate(*rotate(x, y, t), -t), (x, y))


def test_images_are_a_function_of_latents(model, z, plain):
    assert plain.shape == z.shape and 0 <= plain.min() and plain.max() <= 1
    with torch.no_grad():
        assert model(z).equal(plain)
        torch.testing.assert_close(model(z[7:8]), plain[7:8], rtol=0, atol=1e-5)
        assert not model.sample(z, 3).equal(plain)


@pytest.mark.parametrize("bad", [torch.zeros(2, 784), torch.zeros(0, 1, 28, 28),
                                 torch.full((1, 1, 28, 28), float("nan"))])
def test_bad_latents_are_refused(model, bad):
    with pytest.raises(ValueError, match="z"): model(bad)


def test_sides_that_cannot_be_halved_are_refused():
    with pytest.raises(ValueError, match="divisible by 8"): Diffusion(widths=(8, 16), patch_size=4)


def test_losses_fall_and_a_killed_training_resumes(model, tmp_path):
    digits = load_data("digits")
    part = replace(digits, train=Split(digits.train.images[:128], digits.train.labels[:128]))
    start = lambda state=None, epochs=4: Trainer(fresh(Diffusion, {"widths": [8], "patch_size": 4}, seed=0), part,
                                                 Schedule(epochs, batch_size=16, lr=3e-3), 0, state, save_every=0)
    whole = start().fit()
    assert whole.history[-1]["valid_loss"] < 0.95 * whole.history[0]["valid_loss"]
    state = tmp_path / "training.state"
    halfway = start(state)
    for _ in range(2): halfway._epoch()
    halfway._save()
    resumed = start(state).fit()
    for name, weight in whole.model.state_dict().items(): assert resumed.model.state_dict()[name].equal(weight), name


def test_a_saved_model_is_the_same(model, z, tmp_path):
    save_model(model, tmp_path / "model.safetensors")
    loaded = load_model(tmp_path / "model.safetensors")
    loaded.steps = model.steps
    with torch.no_grad(): assert (loaded(z) - model(z)).abs().max() < 0.02  # half precision


def test_layers_are_listed_once_and_shared_activations_left_out(model, z):
    table = suggest_layers(model, z[:10])
    assert LAYER in set(table.layer) and (table.kind == "Activation").sum() == 5
    assert not table.layer.str.contains("nonlinearity").any()


def test_thirds_of_the_steps_act_each_on_its_own(decoder, z, plain):
    assert decoder.n_calls_ == 6
    changed = {}
    for third in THIRDS:
        part = copy(decoder)
        part.calls = third
        changed[third] = part.decode(z, LowActive(fraction=0.5))
        assert part.decode(z, LowActive(fraction=0.5)).equal(changed[third])
        assert (changed[third] - plain).flatten(1).norm(dim=1).min() > 0
    assert not changed["early"].equal(changed["late"])
    with torch.no_grad(): assert decoder.generator(z).equal(plain)  # the hooks are gone


def test_numbered_calls_are_the_third(decoder, z):
    early, numbered = copy(decoder), copy(decoder)
    early.calls, numbered.calls = "early", (0, 1)
    assert early.decode(z, LowActive()).equal(numbered.decode(z, LowActive()))


def test_low_pass_by_hand():
    "A wave of k periods on 16 places has k/8 of the highest frequency."
    wave = lambda k: torch.cos(2 * torch.pi * k * torch.arange(16) / 16).expand(1, 1, 16, 16)
    for k in range(9):
        kept = wave(k) if k / 8 <= 0.5 else 0 * wave(k)
        for maps, expected in ((wave(k), kept), (wave(k).mT, kept.mT)):
            torch.testing.assert_close(low_pass(maps, 0.5), expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(low_pass(torch.full((2, 3, 5, 7), -2.0), 0.01), torch.full((2, 3, 5, 7), -2.0))


def test_a_factor_of_one_changes_nothing(model, z, plain):
    assert Amplified(model, factor=1)(z).equal(plain)
    assert Amplified(model, factor=1, calls="late", cutoff=0.1)(z).equal(plain)


def test_thirds_of_amplified_steps(model, z, plain):
    early = Amplified(model, factor=2, calls="early")(z)
    assert early.equal(Amplified(model, factor=2, calls=[0, 1])(z)) and not early.equal(plain)
    assert not early.equal(Amplified(model, factor=2)(z))
    with torch.no_grad(): assert model(z).equal(plain)


def test_down_and_mid_blocks(model):
    blocks = ["down_blocks.0.resnets.0", "mid_block.resnets.0", "mid_block.resnets.1"]
    assert down_and_mid(model) == [f"unet.{block}" for block in blocks]
    with pytest.raises(ValueError, match="down_blocks"): down_and_mid(torch.nn.Linear(2, 2))


@pytest.mark.parametrize("options, match", [
    (dict(layers=["unet.none"]), "unet.none"), (dict(factor=-1), "factor"), (dict(cutoff=0.0), "cutoff"),
    (dict(calls="first"), "calls")])
def test_bad_amplification_is_refused(model, options, match):
    with pytest.raises(ValueError, match=match): Amplified(model, **options)
