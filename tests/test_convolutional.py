"The VAE of faces: shapes by both readings of its strides, its loss by hand, and how it is trained."
import pytest
import torch

from creative_nb.convolutional import ConvVAE, convolutions
from creative_nb.data import load_data
from creative_nb.models import load_model, save_model
from creative_nb.training import Schedule, Trainer, fresh, has_bfloat16, network_key

SMALL = {"filters": (4, 6, 8), "hidden": (12, 10), "latent": 5, "encoder_dropout": 0.0, "decoder_dropout": 0.0}
LEARNING = Schedule(epochs=3, batch_size=32, flips=True, amp=True, channels_last=True)


@pytest.fixture(scope="module")
def blobs(): return load_data("blobs")


def test_both_readings_of_the_strides():
    "64, 32, 16, 16 pixels by group; one pixel by layer. Three convolutions a group, the last with a kernel of 2."
    group, layer = (convolutions((3, 64, 64), (32, 64, 128), s) for s in ("group", "layer"))
    assert [c.smaller[0] for c in group] == [32] * 3 + [16] * 6
    assert [c.smaller[0] for c in layer] == [32, 16, 16, 8, 4, 4, 2, 1, 1]
    assert [c.kernel for c in group] == [3, 3, 2] * 3 and [c.outside for c in layer] == [32] * 3 + [64] * 3 + [128] * 3
    million = lambda strides: sum(p.numel() for p in ConvVAE(strides=strides).parameters()) / 1e6
    assert 67 < million("group") < 68 and 2 < million("layer") < 2.5


@pytest.mark.parametrize("strides", ["group", "layer"])
@pytest.mark.parametrize("shape", [(3, 64, 64), (1, 28, 28), (2, 21, 34)])
def test_images_come_back_in_their_own_size(shape, strides):
    vae = ConvVAE(shape, strides=strides, **SMALL)
    x = torch.rand(3, *shape)
    assert vae.encode(x).shape == (3, 5) and vae.decode(vae.encode(x)).shape == x.shape
    names = [name for name, _ in vae.decoder.named_children()]
    assert names == [f"hidden{i}" for i in range(1, 12)] + ["out"]
    maps = convolutions(shape, SMALL["filters"], strides)[-1]
    z = torch.nn.Sequential(*list(vae.decoder)[:3])(torch.randn(3, 5))
    assert z.shape == (3, maps.outside, *maps.smaller)


def test_the_loss_is_the_definition():
    torch.manual_seed(0)
    vae, x = ConvVAE(nll_weight=1e7, **SMALL).eval(), torch.rand(4, 3, 64, 64)
    torch.manual_seed(1)
    losses = vae.losses(x)
    mean, logvar = vae.encoder(x)
    torch.manual_seed(1)
    y = vae.decode(mean + torch.randn_like(mean) * (logvar / 2).exp())
    error = ((x - y) ** 2).sum().item() / (4 * 3 * 64 * 64)
    kl = torch.distributions.kl_divergence(torch.distributions.Normal(mean, (logvar / 2).exp()),
                                           torch.distributions.Normal(0, 1)).sum().item() / 4
    assert losses["mse"].item() == pytest.approx(error, rel=1e-5)
    assert losses["nll"].item() == pytest.approx(1e7 * error, rel=1e-5)
    assert losses["kl"].item() == pytest.approx(kl, rel=1e-4)
    assert losses["loss"].item() == pytest.approx(1e7 * error + kl, rel=1e-5)


def test_a_bernoulli_likelihood_is_a_sum_in_nats():
    vae, x = ConvVAE(likelihood="bernoulli", nll_weight=2.0, **SMALL).eval(), torch.ones(2, 3, 64, 64)
    with torch.no_grad():
        for p in vae.parameters(): p.zero_()
    assert vae.losses(x)["nll"].item() == pytest.approx(2 * 3 * 64 * 64 * torch.tensor(2.0).log().item(), rel=1e-5)


def test_it_is_saved_as_it_is(tmp_path):
    vae = ConvVAE(strides="layer", **SMALL)
    save_model(vae, tmp_path / "vae.safetensors")
    again = load_model(tmp_path / "vae.safetensors")
    z = torch.randn(2, 5)
    assert again.config == vae.config
    with torch.no_grad(): torch.testing.assert_close(again.decode(z), vae.eval().decode(z), atol=5e-3, rtol=0)


def test_killed_and_resumed_with_maps_in_another_layout(blobs, tmp_path):
    "Adam's moments come back laid out as the weights are."
    def trainer(state=None, epochs=3):
        schedule = Schedule(epochs, batch_size=110, flips=True, channels_last=True)
        return Trainer(fresh(ConvVAE, SMALL, 0), blobs, schedule, state=state, save_every=0)
    whole, killed = trainer().fit(), trainer(tmp_path / "state.safetensors")
    killed._epoch()
    killed._save()
    resumed = trainer(tmp_path / "state.safetensors")
    assert len(resumed.history) == 1
    resumed.fit()
    for a, b in zip(whole.model.parameters(), resumed.model.parameters()): assert a.equal(b)


def test_flips_and_layout_and_amp_are_part_of_what_decides(blobs):
    keys = {network_key(ConvVAE, SMALL, blobs, Schedule(**{k: True}), 0) for k in ("flips", "amp", "channels_last")}
    assert len(keys | {network_key(ConvVAE, SMALL, blobs, Schedule(), 0)}) == 4


def test_it_learns_in_whatever_precision_the_device_has(blobs):
    trainer = Trainer(fresh(ConvVAE, SMALL | {"nll_weight": 1e5}, 0), blobs, LEARNING).fit()
    assert trainer.history[-1]["valid_mse"] < 0.95 * trainer.history[0]["valid_mse"]
    assert trainer.model.decode(torch.zeros(1, 5)).dtype == torch.float32
    assert has_bfloat16(torch.device("cpu")) in (True, False) and not has_bfloat16(torch.device("meta"))


@pytest.mark.parametrize("bad, message", [
    (dict(strides="all"), "strides='all'"), (dict(filters=()), "filters"), (dict(nll_weight=0.0), "nll_weight=0.0"),
    (dict(likelihood="laplace"), "likelihood='laplace'"), (dict(latent=0), "latent=0")])
def test_bad_arguments(bad, message):
    with pytest.raises(ValueError, match=message): ConvVAE(**bad)
