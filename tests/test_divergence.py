"Bending, blending, rewriting, extrapolation: on units, on maps, and what they leave alone."
import pytest
import torch
from torch import nn

from creative_nb.core import standard_normal
from creative_nb.decode import CreativeDecoder
from creative_nb.divergence import Bending, blended, Extrapolation, rewritten


class Maps(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Sequential(nn.Linear(4, 6 * 16), nn.Unflatten(1, (6, 4, 4)), nn.ReLU())
        self.last = nn.Sequential(nn.Conv2d(6, 1, 1), nn.Sigmoid())

    def forward(self, z): return self.last(self.first(z))


@pytest.fixture
def decoder():
    decoder = CreativeDecoder(Maps().eval(), "first", neurons="channel")
    with pytest.warns(UserWarning): return decoder.fit(standard_normal(200, (4,), 0))


@pytest.mark.parametrize("kind", ["scale", "ablate", "invert", "dilate"])
def test_the_chosen_maps_change_and_no_others(kind):
    bending, x = Bending(kind, share=1 / 3), torch.rand(5, 6, 4, 4)
    at, out = bending.channels(6), bending.bent(x)
    rest = [c for c in range(6) if c not in at]
    assert len(at) == 2 and torch.equal(out[:, rest], x[:, rest]) and not torch.equal(out[:, at], x[:, at])
    expected = {"scale": 3 * x[:, at], "ablate": 0 * x[:, at], "invert": x[:, at].amax(0, keepdim=True) - x[:, at],
                "dilate": nn.functional.max_pool2d(x[:, at], 3, 1, 1)}[kind]
    assert torch.equal(out[:, at], expected)


def test_bending_is_a_method_like_any_other(decoder):
    z = standard_normal(10, (4,), 1)
    plain = decoder.decode(z, Bending("scale", factor=1.0))
    assert torch.allclose(plain, decoder.source.module(z)) and decoder.changed_.tolist() == [0] * 10
    bent = decoder.decode(z, Bending("ablate", share=0.5))
    assert not torch.equal(bent, plain) and decoder.changed_.max() == 3
    assert torch.equal(bent, decoder.decode(z, Bending("ablate", share=0.5), seed=7))  # the same maps for every seed
    assert torch.allclose(decoder.source.module(z), plain)  # nothing stays bent


def test_dilating_units_is_refused():
    with pytest.raises(ValueError, match="dilate.*expected feature maps"): Bending("dilate").bent(torch.rand(3, 8))


def test_blending_ends_at_both_networks():
    a, b = Maps(), Maps()
    with torch.no_grad(): b.last[0].bias += 1
    z = standard_normal(3, (4,), 0)
    assert torch.equal(blended(a, b, 0.0)(z), a(z)) and torch.allclose(blended(a, b, 1.0)(z), b(z))
    assert not torch.equal(a(z), b(z))
    with pytest.raises(ValueError, match="expected weights of the shapes"): blended(a, nn.Linear(2, 2))


def test_rewriting_moves_weights_and_makes_none():
    a = Maps()
    other = rewritten(a, ["first.0"], share=0.5, seed=1)
    before, after = a.first[0].weight.flatten(), other.first[0].weight.flatten()
    assert torch.equal(before.sort().values, after.sort().values) and not torch.equal(before, after)
    assert torch.equal(a.last[0].weight, other.last[0].weight)
    with pytest.raises(ValueError, match="first.2 has no weights, expected some of first.0"): rewritten(a, ["first.2"])


def test_extrapolation_goes_beyond(decoder):
    z = Extrapolation(1.0).draw(decoder, 500, seed=0)
    assert z.shape == (500, 4) and 1.9 < z.std() / decoder.latents_.std() < 2.6  # sqrt(2² + 1²)
    assert torch.equal(z, Extrapolation(1.0).draw(decoder, 500, seed=0))
