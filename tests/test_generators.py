"Generators of other people: conditional, keyword arguments, other ranges, noise, functions, layers that run many "
"times."
import functools
import warnings

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import nn

from creative_nb.core import standard_normal
from creative_nb.decode import CreativeDecoder
from creative_nb.generators import Classes, Embeddings, Encoded, Generator, Noise, Prior, networks_behind
from creative_nb.layers import suggest_layers
from creative_nb.methods import LowActive, RandomOff, Regular
from creative_nb.novelty import Novelty

Z = standard_normal(600, (6,), seed=0)


class Body(nn.Module):
    "Six latents and what else there is to an 8 x 8 image."
    def __init__(self, more: int = 0, act=nn.ReLU):
        super().__init__()
        torch.manual_seed(1)
        self.hidden = nn.Sequential(nn.Linear(6 + more, 60), act())
        self.out = nn.Linear(60, 64)
        with torch.no_grad(): self.hidden[0].bias.copy_(torch.linspace(-3, 1, 60))

    def forward(self, z, *more): return self.out(self.hidden(torch.cat([z, *more], 1))).view(-1, 1, 8, 8)


class Conditional(Body):
    def __init__(self):
        super().__init__(3)

    def forward(self, z, y): return super().forward(z, nn.functional.one_hot(y, 3).float()).tanh()


class Keywords(Body):
    def __init__(self):
        super().__init__(4)

    def forward(self, latents, *, noise, scale=1.0):
        return {"images": super().forward(latents, scale * noise).sigmoid()}


class InnerNoise(Body):
    def forward(self, z): return super().forward(z) + torch.randn(len(z), 1, 8, 8)


class InPlace(Body):
    def forward(self, z): return super().forward(z.mul_(2))


class Repeated(Body):
    "The layer runs five times for one image, at a batch that guidance doubles."
    def forward(self, z):
        for _ in range(5):
            both = super().forward(torch.cat([z, z]))
            z = 0.9 * z + 0.01 * both[:len(z), 0, :1, :6].flatten(1)
        return both[:len(z)]


def tuple_of(z): return BODY(z), "and more"


BODY = Body()
GENERATORS = {"module": Body(), "conditional": Generator(Conditional(), inputs={"y": Classes(3)}, value_range=(-1, 1)),
              "keywords": Generator(Keywords(), inputs={"noise": Noise((4,))}, output="images", value_range=(0, 1)),
              "embedding": Generator(Keywords(), inputs={"noise": Embeddings(torch.eye(4))}, output="images"),
              "inner noise": InnerNoise(), "in place": InPlace(), "tuple": Generator(tuple_of, output=0),
              "partial": functools.partial(Body()), "bound method": Body().forward, "many calls": Repeated()}


def fitted(generator, **options) -> CreativeDecoder:
    return CreativeDecoder(generator, "hidden", **options).fit(Z)


@pytest.mark.parametrize("name", GENERATORS)
def test_decoding_changes_images_and_nothing_else(name):
    decoder, before = fitted(GENERATORS[name]), Z.clone()
    weights = [p.clone() for p in decoder.source.module.parameters()]
    state = torch.get_rng_state()
    regular, creative = decoder.decode(Z[:40], Regular(), seed=3), decoder.decode(Z[:40], LowActive(n=3), seed=3)
    assert regular.shape == creative.shape == (40, 1, 8, 8) and not torch.equal(regular, creative)
    assert torch.equal(Z, before) and torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(weights, decoder.source.module.parameters()))
    assert not decoder.source.module.hidden._forward_hooks


@pytest.mark.parametrize("name", GENERATORS)
def test_the_seed_decides_the_images(name):
    decoder = fitted(GENERATORS[name])
    first = decoder.sample(30, LowActive(n=2), seed=5)
    torch.manual_seed(99)
    assert torch.equal(first, decoder.sample(30, LowActive(n=2), seed=5))
    assert not torch.equal(first, decoder.sample(30, LowActive(n=2), seed=6))


@pytest.mark.parametrize("name", [n for n in GENERATORS if n != "inner noise"])
def test_batches_do_not_matter(name):
    whole, parts = (fitted(GENERATORS[name], batch_size=size).decode(Z[:50], LowActive(n=2), seed=1)
                    for size in (50, 7))
    torch.testing.assert_close(whole, parts)


def test_given_inputs_are_used():
    decoder = fitted(GENERATORS["conditional"])
    classes = torch.arange(30) % 3
    images = decoder.decode(Z[:30], Regular(), inputs={"y": classes})
    with torch.no_grad(): torch.testing.assert_close(images, decoder.source.model(Z[:30], classes))
    for wrong, message in (({"label": classes}, "label.*expected some of y"),
                           ({"y": classes[:3]}, "y has 3 rows, expected 30")):
        with pytest.raises(ValueError, match=message): decoder.decode(Z[:30], inputs=wrong)


def test_the_range_is_checked():
    wrong = Generator(Conditional(), inputs={"y": Classes(3)}, value_range=(0, 1))
    with pytest.raises(ValueError, match=r"value_range=\(0, 1\): the images go from -"): fitted(wrong)
    right = GENERATORS["conditional"]
    unit = right.to_unit(fitted(right).sample(20, Regular()))
    assert unit.min() >= 0 and unit.max() <= 1


@pytest.mark.parametrize("calls, changed", [("same", 5), ("each", 5), ((0,), 1), ((1, 3), 2), ((7,), 0)])
def test_the_neurons_of_many_calls(calls, changed):
    "The same neurons at each call unless told otherwise; a batch that guidance doubles has both halves changed alike."
    decoder, seen = fitted(Repeated(), calls=calls), []
    network = decoder.source.module
    decoder.decode(Z[:20], RandomOff(n=2), seed=0)
    with decoder.applied(RandomOff(n=2), seed=0):
        handle = network.hidden.register_forward_hook(lambda m, a, out: seen.append(out.clone()))
        with torch.no_grad(): network(Z[:20])
        handle.remove()
    high = [(out == 2 * decoder.stats_.max) & decoder.stats_.alive for out in seen]
    assert sum(bool(h.any()) for h in high) == changed and len(seen) == 5
    for h in high: assert calls == "each" or torch.equal(h[:20], h[20:]) or not h.any()
    if calls == "same": assert all(torch.equal(h, high[0]) for h in high)
    if calls == "each": assert not torch.equal(high[0], high[1])


@pytest.mark.parametrize("act", [nn.GELU, nn.SiLU, nn.Tanh, lambda: nn.LeakyReLU(0.2), lambda: nn.BatchNorm1d(60)])
def test_layers_that_are_never_off_at_zero(act):
    decoder = CreativeDecoder(Body(act=act), "hidden", threshold="p25").fit(Z)
    assert decoder.stats_.percent_activation.mean() == pytest.approx(75, abs=2)
    assert not torch.equal(decoder.decode(Z[:9], RandomOff(n=3)), decoder.decode(Z[:9], Regular()))


def test_always_on_is_said():
    class Softplus(Body):
        def __init__(self): super().__init__(act=nn.Softplus)
    with pytest.warns(UserWarning, match="every neuron of layer 'hidden' is always on.*threshold='p10'"):
        fitted(Softplus())


@pytest.mark.parametrize("threshold", ["p101", "median", "2max", "p", ""])
def test_unknown_thresholds(threshold):
    with pytest.raises(ValueError, match="threshold=.*expected a number, a percentile"):
        CreativeDecoder(Body(), "hidden", threshold=threshold).fit(Z)


def test_a_layer_that_does_not_run_is_said():
    class Unused(Body):
        def __init__(self):
            super().__init__()
            self.spare = nn.Linear(2, 2)
    decoder = fitted(Body())
    with pytest.raises(ValueError, match="layer 'spare' ran 0 times"): CreativeDecoder(Unused(), "spare").fit(Z)
    with pytest.warns(UserWarning, match="layer 'hidden' did not run"), decoder.applied(LowActive(n=1)): pass


def test_functions_without_a_network():
    with pytest.raises(ValueError, match="module=network"): CreativeDecoder(lambda z: z, "hidden")
    with pytest.raises(ValueError, match="uses 2 networks: pass module="):
        CreativeDecoder(lambda z: BODY(z) + OTHER(z), "hidden")
    assert networks_behind(lambda z: BODY(z)) == [BODY]


OTHER, DECODER = Body(), fitted(BODY)


@given(st.integers(1, 40), st.integers(0, 5))
@settings(deadline=None, max_examples=25)
def test_samplers(n, seed):
    "Whatever is drawn for n comes first in what is drawn for more; truncation keeps to its limit."
    decoder = DECODER
    for sampler in (Prior(), Prior(truncation=0.7), Prior(scale=2.0)):
        assert torch.equal(sampler.draw(decoder, n, seed), sampler.draw(decoder, n + 5, seed)[:n])
    assert Prior(truncation=0.7).draw(decoder, n, seed).abs().max() <= 0.7
    drawn = Encoded(Z).draw(decoder, n, seed)
    assert len(drawn) == n and (drawn[:, None] == Z).all(2).any(1).all()


@pytest.mark.parametrize("make", [lambda: Prior(scale=0), lambda: Prior(truncation=-1),
                                  lambda: Prior(truncation=float("nan"))])
def test_bad_samplers(make):
    with pytest.raises(ValueError, match="expected a positive number"): make()


def test_suggested_layers():
    table = suggest_layers(Body(), Z)
    assert (table.layer.tolist() == ["hidden.0", "hidden.1", "out"]
            and table[table.advice != ""].layer.item() == "hidden.1")
    assert table[["dead", "low_active", "sometimes", "always_on"]].sum(axis=1).tolist() == pytest.approx([100] * 3)
    smooth = suggest_layers(Body(act=nn.Softplus), Z)
    assert (smooth.always_on[smooth.layer == "hidden.1"].item() == 100
            and smooth[smooth.advice != ""].layer.item() == "hidden.0")
    assert list(suggest_layers(GENERATORS["conditional"], Z).layer) == ["hidden.0", "hidden.1", "out"]


def test_metrics_put_networks_behind_functions_in_evaluation_mode():
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 6), nn.Dropout(0.5)).train()
    images = torch.rand(50, 1, 8, 8)
    novelty = Novelty(encode=lambda x: network(x)).fit(images)
    first, again = novelty.score(images[:5]), novelty.score(images[:5])
    assert all(torch.equal(first[k], again[k]) for k in first) and network.training and network[2].training


def test_images_of_another_range_are_refused():
    images = torch.rand(50, 1, 8, 8)
    novelty = Novelty().fit(images)
    for other in (2 * images - 1, 255 * images):
        with pytest.raises(ValueError, match=r"images: values from .* those of the training images, \S+ to"):
            novelty.score(other)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        novelty.score(torch.rand(5, 1, 8, 8))


class Holder:
    def __init__(self, net): self.net = net
    def __call__(self, x): return self.net(x)
    def encode(self, x): return self.net(x)


def through_a_helper(net):
    def inner(x): return net(x)
    def outer(x): return inner(x) * 2
    return outer


NET = nn.Linear(2, 2)


@pytest.mark.parametrize("f", [
    NET, NET.forward, lambda x: NET(x), lambda x: torch.stack([NET(row) for row in x]), through_a_helper(NET),
    functools.partial(lambda net, x: net(x), NET), functools.partial(NET),
    Holder(NET), Holder(NET).encode, Holder([NET]),
    Holder({"a": lambda x: NET(x)}), lambda x, net=NET: net(x), Generator(lambda z: NET(z))], ids=range(13))
def test_the_network_behind_a_function_is_found(f):
    assert networks_behind(f) == [NET]


def test_functions_of_libraries_have_no_networks_behind_them():
    assert networks_behind(lambda x: torch.nn.functional.interpolate(x, 2)) == networks_behind(torch.sigmoid) == []
