"The creative decoder against slow per-sample versions of the paper's algorithms, its properties, foreign generators "
"and bad input."
import math
import os
import subprocess
import sys
import warnings
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from sklearn.exceptions import NotFittedError
from torch import nn

from creative_nb.core import rng, standard_normal
from creative_nb.decode import CreativeDecoder
from creative_nb.generators import Interpolation
from creative_nb.methods import (Cluster, Correlation, LowActive, NonSpecific, Noisy, RandomOff, Regular,
                                 TooFewNeurons, TurnOff)
from creative_nb.models import VAE
from creative_nb.neurons import by_correlation, class_entropy, hooked, neuron_clusters
from creative_nb.select import (CandidateIndex, Uniforms, in_columns, least_related, nearest, pick_first, pick_random,
                                random_ranks)

LATENT, WIDTH = 6, 80


def sparse_generator(seed=0):
    "A random ReLU generator whose wide layer has dead, low-active and busy neurons, like a trained decoder's."
    torch.manual_seed(seed)
    decoder = VAE(image_shape=(1, 8, 8), hidden=(WIDTH, 40, 20), latent=LATENT).decoder
    with torch.no_grad(): decoder.hidden3[0].bias.copy_(torch.linspace(-1.2, 0.5, WIDTH))
    return decoder.eval()


@pytest.fixture(scope="module")
def decoder():
    generator, z = sparse_generator(), standard_normal(2000, (LATENT,), seed=1)
    decoder = CreativeDecoder(generator, "hidden3", batch_size=64).fit(
        z, (z[:, 0] > 0).long() + 2 * (z[:, 1] > 0).long()
    )
    noise = 1e-3 * torch.rand(WIDTH, WIDTH, generator=torch.Generator().manual_seed(0))
    # no ties between neurons that fired once, so the algorithms have one answer
    decoder.stats_.correlation += noise + noise.T
    return decoder


def activations(decoder, z, method=None, seed=0):
    "What the layer passes on, without or with a method."
    seen = []
    def listen(out): seen.append(out.clone())
    if method is None:
        with hooked(decoder.generator, decoder.layer, listen): decoder.generator(z)
    else:
        with decoder.applied(method, seed), hooked(decoder.generator, decoder.layer, listen): decoder.generator(z)
    return seen[0].detach().flatten(1)


# ---- oracles: one sample at a time, as the algorithms are printed ----

def oracle_random(candidates, u, k):
    "Floyd's algorithm for one sample: list of `k` of the candidates, all of them when there are no more."
    k, taken = min(k, len(candidates)), []
    for i in range(k):
        last = len(candidates) - k + i
        rank = int(u[i] * (last + 1))
        taken.append(last if rank in taken else rank)
    return [candidates[rank] for rank in taken]


def oracle_low_active(d, u, stats, method, band):
    "Algorithm 1 for one sample: list of neurons turned on."
    candidates = [j for j in band if d[j] <= stats.threshold]
    if not candidates: return []
    s = candidates[int(u[0] * len(candidates))]
    k = method.n if method.fraction is None else int(method.fraction * len(candidates))
    ranked = sorted(candidates, key=lambda j: (j != s, -stats.correlation[s, j].item()))
    return ranked[:k]


def oracle_correlation(d, u, stats, method):
    "Algorithm 2 for one sample: neurons turned on, neurons turned off."
    alive = [j for j in range(stats.width) if stats.percent_activation[j] > 0]
    on, off = [j for j in alive if d[j] > stats.threshold], [j for j in alive if d[j] <= stats.threshold]
    gamma = {j: sum(stats.correlation[j, h].item() * d[h].item() for h in on) / max(1, len(on)) for j in off}
    lowest = sorted(sorted(off, key=lambda j: gamma[j])[:max(1, int(method.kappa * len(off)))])
    s = lowest[int(u[0] * len(lowest))]
    k = method.n if method.fraction is None else int(method.fraction * len(on))
    turned_on = sorted(off, key=lambda j: (j != s, -stats.correlation[s, j].item()))[:k]
    top = max(alive, key=lambda j: d[j])
    turned_off = (sorted(on, key=lambda j: (j != top, -stats.correlation[top, j].item()))[: len(turned_on)]
                  if method.turn_off else [])
    return turned_on, turned_off


def check_against(decoder, method, oracle, draws, seed=3, n=150):
    z = standard_normal(n, (LATENT,), seed=9)
    before, after = activations(decoder, z), activations(decoder, z, method, seed)
    u = Uniforms(seed)(n, draws, "cpu")
    on_value = 2 * decoder.stats_.max
    for i in range(n):
        expected = before[i].clone()
        turned_on, turned_off = oracle(before[i], u[i].tolist())
        if turned_on: expected[turned_on] = on_value[turned_on]
        if turned_off: expected[turned_off] = 0
        assert torch.equal(after[i], expected), i


@pytest.mark.parametrize("method", [LowActive(n=1), LowActive(n=4), LowActive(fraction=0.5),
                                    LowActive(n=3, percentiles=(0, 30))])
def test_low_active_is_algorithm_1(decoder, method):
    stats = decoder.stats_
    a = stats.percent_activation.double().numpy()
    low, high = np.percentile(a[a > 0], method.percentiles)
    band = [j for j in range(WIDTH) if a[j] > 0 and low <= a[j] <= high]
    check_against(decoder, method, lambda d, u: (oracle_low_active(d, u, stats, method, band), []), 1)


@pytest.mark.parametrize("method", [Correlation(n=1), Correlation(n=6), Correlation(fraction=0.3),
                                    Correlation(n=4, turn_off=True, kappa=0.3)])
def test_correlation_is_algorithm_2(decoder, method):
    stats = decoder.stats_
    check_against(decoder, method, lambda d, u: oracle_correlation(d, u, stats, method), 1)


@pytest.mark.parametrize("method", [RandomOff(n=5), RandomOff(fraction=0.6), TurnOff(n=3), TurnOff(fraction=0.5)],
                         ids=repr)
def test_random_choices_are_floyds(decoder, method):
    stats = decoder.stats_
    alive, off = stats.alive.nonzero().flatten().tolist(), isinstance(method, RandomOff)

    def oracle(d, u):
        candidates = [j for j in alive if (d[j] <= stats.threshold) == off]
        taken = oracle_random(candidates, u, method.n if method.fraction is None
                              else int(method.fraction * len(candidates)))
        return (taken, []) if off else ([], taken)

    check_against(decoder, method, oracle, method.n if method.fraction is None else int(method.fraction * len(alive)))


def test_non_specific_uses_its_band(decoder):
    stats, method = decoder.stats_, NonSpecific(n=1, max_activation=60, top_entropy=40)
    entropy = class_entropy(stats)
    cut = np.percentile(entropy.double().numpy(), 60)
    band = [j for j in range(WIDTH) if stats.alive[j] and stats.class_activation[:, j].max() < 60 and entropy[j] >= cut
            - 1e-6]
    assert 1 <= len(band) < int(stats.alive.sum())
    check_against(decoder, method, lambda d, u: (oracle_low_active(d, u, stats, method, band), []), 1)


@pytest.mark.parametrize("clusters", [1, 3])
def test_cluster_takes_the_least_active_clusters(decoder, clusters):
    method, z = Cluster(n=2, clusters=clusters, total=6), standard_normal(200, (LATENT,), seed=4)
    stats, members = decoder.stats_, neuron_clusters(decoder.stats_, 6)
    before, after = activations(decoder, z), activations(decoder, z, method, 5)
    for b, a in zip(before, after):
        share = [(b[members == c] > 1e-7).float().mean().item() for c in range(6)]
        worst_allowed = sorted(share)[clusters - 1]
        touched = members[b != a]
        assert (len(touched) >= 1 and all(share[c] <= worst_allowed for c in touched.tolist())
                and len(set(touched.tolist())) <= clusters)
    assert stats.alive[(before != after).any(0)].all()


# ---- choosing neurons ----

@st.composite
def masks(pick):
    "Candidates (B, M), few or many, how many to take and, or None, a limit for each row."
    batch, width, generator = (pick(st.integers(1, 6)), pick(st.integers(1, 100)),
                               torch.Generator().manual_seed(pick(st.integers(0, 2**31))))
    candidates = torch.rand(batch, width, generator=generator) < pick(st.sampled_from([0.02, 0.1, 0.5, 0.9, 1]))
    most = torch.randint(width + 1, (batch,), generator=generator) if pick(st.booleans()) else None
    return candidates, pick(st.integers(1, width)), most


def expected_counts(candidates, n, most):
    return [min(n, m, n if most is None else most[i].item()) for i, m in enumerate(candidates.sum(1).tolist())]


@settings(deadline=None)
@given(case=masks(), seed=st.integers(0, 2**31))
def test_draw_takes_distinct_candidates_as_many_as_there_can_be(case, seed):
    candidates, n, most = case
    index, chosen = pick_random(CandidateIndex(candidates), Uniforms(seed)(len(candidates), n, "cpu"), most)
    assert index.shape == chosen.shape == (len(candidates), n) and chosen.sum(1).tolist() == expected_counts(
        candidates, n, most
    )
    for row, places, counts in zip(candidates, index, chosen):
        assert row[places[counts]].all() and len(set(places[counts].tolist())) == counts.sum()


@settings(deadline=None)
@given(case=masks(), seed=st.integers(0, 2**31))
def test_first_and_nearest_take_the_first_candidates(case, seed):
    candidates, n, most = case
    width = candidates.shape[1]
    generator = torch.Generator().manual_seed(seed)
    correlation, s = torch.rand(width, width, generator=generator), torch.randint(
        width, (len(candidates),), generator=generator
    )
    for order, (index, chosen) in (
        (None, pick_first(CandidateIndex(candidates), n, most)),
        (by_correlation(correlation), nearest(by_correlation(correlation), s, candidates, n, most)),
    ):
        for i, k in enumerate(expected_counts(candidates, n, most)):
            ranked = (
                range(width)
                if order is None
                else sorted(range(width), key=lambda j: (j != s[i], -correlation[s[i], j].item()))
            )
            assert index[i][chosen[i]].tolist() == [j for j in ranked if candidates[i, j]][:k]


@settings(deadline=None)
@given(case=masks())
def test_ranks_count_every_candidate_and_stay_in_the_row(case):
    candidates = case[0]
    width = candidates.shape[1]
    ranks = CandidateIndex(candidates)
    assert ranks.count.tolist() == candidates.sum(1).tolist()
    for row, places in zip(candidates, ranks.position_of(torch.arange(width).repeat(len(candidates), 1)).tolist()):
        count = int(row.sum())
        assert places[:count] == row.nonzero().flatten().tolist() and all(0 <= p < width for p in places[count:])


def test_nearest_looks_at_all_neurons_when_few_are_candidates():
    correlation = torch.rand(300, 300, generator=torch.Generator().manual_seed(0))
    order, s = by_correlation(correlation), torch.tensor([7, 8])
    candidates = torch.ones(2, 300, dtype=torch.bool)
    candidates[1, order[8, :298]] = False
    index, chosen = nearest(order, s, candidates, 2)
    assert chosen.all() and index[0].tolist() == order[7, :2].tolist() and index[1].tolist() == order[8, 298:].tolist()


@pytest.mark.parametrize("count,n", [(5, 1), (5, 2), (6, 3), (7, 6), (4, 4)])
def test_every_subset_is_equally_likely(count, n):
    rank, chosen = random_ranks(Uniforms(1)(20_000, n, "cpu"), torch.full((20_000,), count), width=9)
    subsets = [tuple(sorted(row)) for row in rank.tolist()]
    times = [subsets.count(subset) for subset in combinations(range(count), n)]
    assert chosen.all() and sum(times) == 20_000 and (len(times) == 1 or chisquare(times).pvalue > 1e-3)


def test_draws_of_fewer_than_asked_are_uniform_too():
    rank, chosen = random_ranks(Uniforms(2)(20_000, 4, "cpu"), torch.full((20_000,), 5), 5, torch.full((20_000,), 2))
    subsets = [tuple(sorted(row)) for row in rank[:, :2].tolist()]
    assert (chosen.sum(1) == 2).all() and chisquare([subsets.count(pair)
                                                     for pair in combinations(range(5), 2)]).pvalue > 1e-3


def test_neurons_that_tie_are_equally_likely(decoder):
    correlation = decoder.stats_.correlation
    d = torch.zeros(2, WIDTH)
    assert least_related(d, d > 0, (d > 0).sum(1), in_columns(correlation), 0.1).all()
    d[1, 3] = 1.0
    least = least_related(d, d > 0, (d > 0).sum(1), in_columns(correlation), 0.1)
    assert least[0].all() and least[1].sum() == int(0.1 * (WIDTH - 1)) and not least[1, 3]


# ---- properties of every method ----

METHODS = [LowActive(n=4), NonSpecific(n=1, max_activation=60, top_entropy=40), Correlation(n=4),
           Correlation(n=3, turn_off=True), Cluster(n=3, total=4), Cluster(n=3, clusters=3, total=4), RandomOff(n=5),
           Noisy(n=5, scale=0.5), TurnOff(n=3), LowActive(fraction=0.4), LowActive(n=3, correlated=False),
           RandomOff(n=2, statistic="mean", scale=3.0)]
names = pytest.mark.parametrize("method", METHODS, ids=repr)


@names
def test_only_alive_neurons_change_and_as_many_as_reported(decoder, method):
    z = standard_normal(300, (LATENT,), seed=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        decoder.decode(z, method, seed=1)
    before, after = activations(decoder, z), activations(decoder, z, method, 1)
    changed = before != after
    assert torch.equal(changed.sum(1), decoder.changed_)
    assert not changed[:, ~decoder.stats_.alive].any()
    if isinstance(method, (LowActive, Cluster, RandomOff)) or type(method) is Correlation and not method.turn_off:
        assert (before[changed] <= 1e-7).all()
    if isinstance(method, TurnOff): assert (before[changed] > 1e-7).all() and (after[changed] == 0).all()
    if method.fraction is None:
        assert (decoder.changed_ <= method.n * (2 if getattr(method, "turn_off", False) else 1)).all()
    assert changed.any()


@names
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**31), batch=st.integers(1, 80), n=st.integers(1, 70))
def test_seed_decides_and_batch_size_does_not_matter(decoder, method, seed, batch, n):
    z = standard_normal(n, (LATENT,), seed=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        decoder.batch_size = 64
        images, changed = decoder.decode(z, method, seed), decoder.changed_
        assert torch.equal(images, decoder.decode(z, method, seed))
        decoder.batch_size = batch
        try: torch.testing.assert_close(decoder.decode(z, method, seed), images)
        finally: decoder.batch_size = 64
    assert torch.equal(decoder.changed_, changed) and images.shape == (n, 1, 8, 8)


@names
def test_hook_is_gone_after_use_and_after_an_exception(decoder, method):
    z = standard_normal(20, (LATENT,), seed=2)
    plain = decoder.decode(z, Regular())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        decoder.decode(z, method)
    with pytest.raises(KeyError), decoder.applied(method): raise KeyError
    with torch.no_grad(): assert torch.equal(decoder.generator(z), plain)
    assert not decoder.generator.hidden3._forward_hooks


def test_random_off_is_uniform(decoder):
    z = standard_normal(1, (LATENT,), seed=2).expand(40_000, -1)
    before, after = activations(decoder, z), activations(decoder, z, RandomOff(n=1), 0)
    off = decoder.stats_.alive & (before[0] <= 1e-7)
    share = (before != after).float().mean(0)[off] * off.sum()
    assert (share - 1).abs().max() < 0.2  # five standard errors of a count of 40,000 / 60


def test_nested_use(decoder):
    z = standard_normal(30, (LATENT,), seed=2)
    outer, inner = RandomOff(n=2), TurnOff(n=1)
    before = activations(decoder, z)
    seen = []
    with decoder.applied(outer, 1):
        with decoder.applied(inner, 2), hooked(decoder.generator, "hidden3", lambda out: seen.append(out.clone())):
            decoder.generator(z)
        with hooked(decoder.generator, "hidden3", lambda out: seen.append(out.clone())): decoder.generator(z)
    assert ((seen[0] != before).sum(1) >= 1).all() and ((seen[1] != before).sum(1) == 2).all()
    assert torch.equal(activations(decoder, z), before)


def test_same_latents_for_every_method(decoder):
    plain, creative = decoder.sample(50, Regular(), seed=3), decoder.sample(50, LowActive(n=1, scale=0.5), seed=3)
    assert torch.allclose(plain, decoder.decode(standard_normal(50, (LATENT,), seed=3), Regular()))
    assert (plain - creative).abs().mean() < (plain - decoder.sample(50, Regular(), seed=4)).abs().mean()


@pytest.mark.parametrize("points", [2, 4])
def test_interpolation_is_the_mean_of_points_of_different_classes(decoder, points):
    z = Interpolation(points).draw(decoder, 400, seed=0)
    classes = decoder.labels_.unique().tolist()
    tagged = decoder.latents_.clone()
    tagged[:, :len(classes)] = torch.nn.functional.one_hot(decoder.labels_, len(classes)).float()
    plain, decoder.latents_ = decoder.latents_, tagged
    try: share = Interpolation(points).draw(decoder, 400, seed=0)[:, :len(classes)]
    finally: decoder.latents_ = plain
    assert ((share > 0).sum(1) == points).all() and torch.allclose(share.sum(1), torch.ones(400))
    assert z.std() < decoder.latents_.std()


# ---- foreign generators ----

class ConvGenerator(nn.Module):
    "A DCGAN-like generator with batch normalisation and dropout, as users bring."
    def __init__(self):
        super().__init__()
        self.project = nn.Linear(12, 16 * 4 * 4)
        self.up = nn.Sequential(nn.ConvTranspose2d(16, 24, 4, 2, 1), nn.BatchNorm2d(24), nn.ReLU(), nn.Dropout(0.3),
                                nn.ConvTranspose2d(24, 3, 4, 2, 1), nn.Tanh())

    def forward(self, z): return self.up(self.project(z).relu().view(-1, 16, 4, 4))


@pytest.mark.parametrize("neurons,width", [("unit", 24 * 8 * 8), ("channel", 24)])
def test_foreign_convolutional_generator(neurons, width):
    torch.manual_seed(0)
    generator = ConvGenerator().train()
    decoder = CreativeDecoder(generator, "up.2", neurons=neurons).fit(standard_normal(400, (12,), seed=0))
    assert decoder.stats_.width == width and generator.training and generator.up[3].training
    z = standard_normal(40, (12,), seed=1)
    images = decoder.decode(z, TurnOff(n=3), seed=2)
    assert images.shape == (40, 3, 16, 16) and (decoder.changed_ == 3).all() and images.isfinite().all()
    maps = activations_of(generator, "up.2", z)
    changed = activations_of(generator, "up.2", z, decoder, TurnOff(n=3)) != maps
    per_sample = changed.flatten(2).any(2).sum(1) if neurons == "channel" else changed.flatten(1).sum(1)
    assert (per_sample == 3).all()


def activations_of(generator, layer, z, decoder=None, method=None):
    seen, generator = [], generator.eval()
    context = decoder.applied(method, 2) if decoder else warnings.catch_warnings()
    with torch.no_grad(), context, hooked(generator, layer, lambda out: seen.append(out.clone())): generator(z)
    return seen[0]


def test_channel_turned_on_has_the_on_value_as_its_mean():
    torch.manual_seed(0)
    generator = nn.Sequential(nn.Linear(5, 6 * 9), nn.Unflatten(1, (6, 3, 3)), nn.ReLU(), nn.Flatten(),
                              nn.Linear(54, 4)).eval()
    with torch.no_grad(): generator[0].bias.view(6, 9)[:3] = -1.5
    decoder = CreativeDecoder(generator, "2", neurons="channel").fit(standard_normal(3000, (5,), seed=0))
    z = standard_normal(50, (5,), seed=3)
    before, after = (activations_of(generator, "2", z, *args).mean((2, 3)) for args in ((), (decoder, RandomOff(n=1))))
    changed = before != after
    on_value = (2 * decoder.stats_.max).expand_as(after)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        decoder.decode(z, RandomOff(n=1), seed=2)
    assert changed.any() and torch.equal(changed.sum(1), decoder.changed_)
    torch.testing.assert_close(after[changed], on_value[changed])


def test_a_layer_whose_output_is_changed_in_place_afterwards():
    torch.manual_seed(0)
    generators = [nn.Sequential(nn.Linear(5, 30), nn.BatchNorm1d(30), nn.ReLU(inplace), nn.Linear(30, 4))
                  for inplace in (False, True)]
    generators[1].load_state_dict(generators[0].state_dict())
    z = standard_normal(300, (5,), seed=0)
    apart, in_place = (CreativeDecoder(g, "1").fit(z).stats_.tensors() for g in generators)
    for name, expected in apart.items(): assert torch.equal(in_place[name], expected), name
    assert apart["quantiles"].min() < 0


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("method", [LowActive(n=3), Correlation(n=3, turn_off=True), Cluster(n=2, total=4),
                                    RandomOff(n=3), Noisy(n=3), TurnOff(n=1)], ids=repr)
def test_generators_of_other_precisions(method, dtype):
    generator = sparse_generator().to(dtype)
    decoder = CreativeDecoder(generator, "hidden3").fit(standard_normal(500, (LATENT,), seed=1).to(dtype))
    images = decoder.sample(20, method)
    assert images.dtype == dtype and images.isfinite().all() and decoder.changed_.any()


def test_labels_of_any_integer_type():
    z, classes = standard_normal(200, (LATENT,), seed=1), torch.arange(200) % 3
    wide, narrow = (CreativeDecoder(sparse_generator(), "hidden3").fit(z, classes.to(t)).stats_.class_activation
                    for t in (torch.int64, torch.uint8))
    assert torch.equal(wide, narrow)
    with pytest.raises(ValueError, match="labels .torch.float32. of shape .200,.*integer"):
        CreativeDecoder(sparse_generator(), "hidden3").fit(z, classes.float())


def test_nothing_to_turn_on_is_said():
    torch.manual_seed(0)
    decoder = CreativeDecoder(ConvGenerator(), "up.2", neurons="channel",
                              threshold=1e-7).fit(standard_normal(400, (12,), seed=0))
    with pytest.warns(UserWarning, match="none of 8 samples.*no image was changed.*threshold=1e-07"):
        decoder.sample(8, RandomOff(n=1))


def test_gradients_flow_through_applied(decoder):
    z = standard_normal(3, (LATENT,), seed=0).requires_grad_()
    with decoder.applied(LowActive(n=2), 0): decoder.generator(z).sum().backward()
    assert z.grad.isfinite().all() and z.grad.abs().sum() > 0


def test_save_and_load(decoder, tmp_path):
    decoder.save(tmp_path / "d.safetensors")
    loaded, z = CreativeDecoder.load(tmp_path / "d.safetensors", decoder.generator), standard_normal(
        40, (LATENT,), seed=5
    )
    for method in (LowActive(n=3), Cluster(n=2, total=4), Noisy()):
        assert torch.equal(loaded.decode(z, method), decoder.decode(z, method))
    assert torch.equal(
        loaded.sample(9, latents=Interpolation(2)), decoder.sample(9, latents=Interpolation(2))
    ) and repr(loaded.stats_) == repr(decoder.stats_)


# ---- bad input ----

def test_unknown_layer_lists_the_layers(decoder):
    with pytest.raises(ValueError, match="layer='hidden9'.*hidden1.*hidden3"):
        CreativeDecoder(decoder.generator, "hidden9")


def test_not_fitted(decoder):
    fresh = CreativeDecoder(decoder.generator, "hidden3")
    for use in (lambda: fresh.sample(1), lambda: fresh.decode(torch.zeros(1, LATENT)), lambda: fresh.save("x")):
        with pytest.raises(NotFittedError, match="fit"): use()
    with pytest.raises(NotFittedError), fresh.applied(LowActive()): pass


@pytest.mark.parametrize("latents,message", [
    (torch.zeros(3, LATENT + 1), r"shape \(3, 7\).*\(N, 6\)"),
    (torch.full((3, LATENT), torch.nan), "3 of 3 rows hold NaN"),
    (torch.zeros(0, LATENT), "N >= 1"), (torch.zeros(3, LATENT).long(), "floating"), ([1, 2], "expected a Tensor")])
def test_bad_latents(decoder, latents, message):
    with pytest.raises((ValueError, TypeError), match=message): decoder.decode(latents)
    if not isinstance(latents, torch.Tensor) or latents.shape[1] == LATENT:
        with pytest.raises((ValueError, TypeError)): CreativeDecoder(decoder.generator, "hidden3").fit(latents)


@pytest.mark.parametrize("method", [LowActive(n=70), RandomOff(n=81), Correlation(n=81), Cluster(n=81), TurnOff(n=99),
                                    Noisy(n=99), NonSpecific(n=50)], ids=repr)
def test_more_neurons_than_the_pool(decoder, method):
    with pytest.raises(TooFewNeurons, match=f"n={method.n}: {type(method).__name__} has only"):
        decoder.sample(2, method)


@pytest.mark.parametrize("make", [lambda: LowActive(n=0), lambda: LowActive(n=2.5), lambda: LowActive(fraction=0),
                                  lambda: Correlation(kappa=2), lambda: LowActive(percentiles=(15, 1)),
                                  lambda: LowActive(statistic="mode"), lambda: LowActive(statistic="p101"),
                                  lambda: NonSpecific(max_activation=0), lambda: Noisy(scale=math.nan),
                                  lambda: LowActive(scale=-1),
                                  lambda: Cluster(clusters=11), lambda: Interpolation(1)])
def test_bad_settings(make):
    with pytest.raises(ValueError, match="expected"): make()


def test_settings_that_only_the_layer_can_judge(decoder):
    with pytest.raises(ValueError, match="expected"): decoder.sample(2, Cluster(n=1, total=500))
    with pytest.raises(ValueError, match="points=5.*4 classes"): decoder.sample(2, latents=Interpolation(5))
    with pytest.raises(ValueError, match="without class labels"):
        CreativeDecoder(decoder.generator, "hidden3").fit(decoder.latents_).sample(2, NonSpecific())


def test_dead_layer():
    generator = sparse_generator()
    with torch.no_grad(): generator.hidden3[0].bias.fill_(-1e3)
    with pytest.raises(ValueError, match="all of its 80 neurons are dead"):
        CreativeDecoder(generator, "hidden3").fit(standard_normal(50, (LATENT,), seed=0))


class Pair(nn.Module):
    def __init__(self): super().__init__(); self.line = nn.Linear(4, 5)  # noqa: E702
    def forward(self, z): return self.line(z).relu(), z


def test_tuples_are_refused_by_name():
    z = standard_normal(10, (4,), seed=0)
    with pytest.raises(TypeError, match="layer '0' returns a tuple"): CreativeDecoder(nn.Sequential(Pair()), "0").fit(z)
    wrapped = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), Pair())
    with pytest.raises(TypeError, match="generator returns a tuple"):
        CreativeDecoder(wrapped, "1").fit(z).sample(2, TurnOff(n=1))


def test_a_layer_that_runs_twice_has_the_same_neurons_changed_twice():
    torch.manual_seed(0)
    shared = nn.Sequential(nn.Linear(6, 6), nn.ReLU())
    decoder = CreativeDecoder(nn.Sequential(shared, shared), "0").fit(standard_normal(500, (6,), seed=0))
    assert decoder.stats_.n == 1000
    z, seen = standard_normal(20, (6,), seed=1), []
    watched = hooked(decoder.generator, "0", lambda out: seen.append(out.clone()))
    with watched, decoder.applied(RandomOff(n=1), seed=0), \
         hooked(decoder.generator, "0", lambda out: seen.append(out.clone())), torch.no_grad(): decoder.generator(z)
    changed = [before != after for before, after in (seen[:2], seen[2:])]
    some = changed[0].any(1)
    assert some.any() and torch.equal(changed[0][some],
                                      (changed[1] | (seen[3] == 2 * decoder.stats_.max))[some] & changed[0][some])


def test_a_generator_that_changed_since_fitting(decoder):
    other = CreativeDecoder(sparse_generator(), "hidden3").fit(standard_normal(100, (LATENT,), seed=0))
    other.generator.hidden3 = nn.Sequential(nn.Linear(40, 30), nn.ReLU())
    with pytest.raises(ValueError, match="30 neurons.*fitted to 80"): other.sample(2, TurnOff(n=1))


def test_seed_must_be_a_natural_number(decoder):
    with pytest.raises(ValueError, match="seed=-1"): decoder.sample(2, seed=-1)
    assert rng(0, "a").random() == rng(0, "a").random()


# ---- what is assumed of a generator

class Fast(nn.Module):
    "Takes a short cut past the layer when `fast`; gives its images the wrong way round as `out` says."
    def __init__(self, out=lambda x: x):
        super().__init__()
        self.inner, self.act, self.last = nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 16)
        self.fast, self.out = False, out

    def forward(self, z):
        hidden = self.inner(z)
        return self.out(self.last(torch.relu(hidden) if self.fast else self.act(hidden)))


MANY = standard_normal(1000, (8,), seed=0)


def test_a_layer_that_is_skipped_is_an_error_not_a_regular_image():
    decoder = CreativeDecoder(generator := Fast(), "act").fit(MANY)
    generator.fast = True
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match="layer 'act' did not run, so no image was changed"):
            decoder.decode(MANY[:20])
        assert decoder.decode(MANY[:20], Regular()).shape == (20, 16)
    with pytest.warns(UserWarning, match="layer 'act' did not run"), decoder.applied(LowActive()): generator(MANY[:20])


@pytest.mark.parametrize("out", [lambda x: x[None].repeat(7, 1, 1), lambda x: x[::2], lambda x: x.mean(0)])
def test_images_that_are_not_one_for_each_latent(out):
    decoder = CreativeDecoder(Fast(out), "act").fit(MANY)
    with pytest.raises(ValueError, match=r"returns \d+ images for 50 latents: expected one each"): decoder.sample(50)


def test_the_callers_latents_stay_the_callers():
    class Normalises(Fast):
        def forward(self, z): return super().forward(z.div_(z.norm(dim=1, keepdim=True)))
    z = MANY.clone()
    decoder = CreativeDecoder(Normalises(), "act").fit(z, labels := torch.arange(1000) % 4)
    first = decoder.decode(z[:9])
    assert torch.equal(z, MANY) and torch.equal(decoder.decode(z[:9]), first)
    drawn = decoder.sample(9, latents=Interpolation(2))
    z.zero_(), labels.zero_()
    assert torch.equal(decoder.sample(9, latents=Interpolation(2)), drawn)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_latents_are_taken_to_the_networks_precision(dtype):
    decoder = CreativeDecoder(Fast(), "act").fit(MANY.to(dtype))
    assert decoder.decode(MANY[:5].to(dtype)).dtype == torch.float32


def test_a_saved_decoder_belongs_to_its_generator(tmp_path):
    decoder = CreativeDecoder(generator := Fast(), "act").fit(MANY)
    decoder.save(tmp_path / "d.safetensors")
    assert torch.equal(CreativeDecoder.load(tmp_path / "d.safetensors", generator).sample(4), decoder.sample(4))
    with pytest.raises(ValueError, match="generator=.*expected the one that .*d.safetensors was fitted to"):
        CreativeDecoder.load(tmp_path / "d.safetensors", Fast())


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_activations_that_are_not_finite(bad):
    generator = Fast()
    with torch.no_grad(): generator.inner.weight[3] = bad
    with pytest.raises(ValueError, match="layer 'act': 1 of its 64 neurons take values that are not finite"):
        CreativeDecoder(generator, "act").fit(MANY)


def test_few_latents_are_told():
    with pytest.warns(UserWarning, match="fitted to 999 latents"): CreativeDecoder(Fast(), "act").fit(MANY[:999])


def test_memory_of_a_wide_layer():
    "What is needed besides the activations that are kept for percentiles stays below twice their size."
    code = """
import resource, torch
from torch import nn
from creative_nb.neurons import neuron_stats
class Wide(nn.Module):
    def __init__(self): super().__init__(); self.w, self.act = nn.Parameter(torch.linspace(-1, 1, 65536)), nn.ReLU()
    def forward(self, z): return self.act(z[:, :1] * self.w)
wide, z = Wide(), torch.randn(400, 4)
with torch.no_grad(): wide(z[:25])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
neuron_stats(wide, "act", z, batch_size=25)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**10)"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert float(out) < 3 * (400 * 65536 * 4 / 2**20) + 100


def test_a_layer_that_the_machine_cannot_hold_is_refused(monkeypatch):
    monkeypatch.setattr(os, "sysconf", lambda name: 4096 if name == "SC_PAGE_SIZE" else 10)
    with pytest.raises(ValueError, match="neurons='unit': needs .* GB, expected no more than"):
        CreativeDecoder(Fast(), "act").fit(MANY)
    with pytest.raises(ValueError, match="n=10000000000000: needs"): CreativeDecoder.sample(stub(), 10**13)


def stub():
    decoder = CreativeDecoder(Fast(), "act")
    decoder.stats_, decoder.latents_ = None, MANY
    return decoder


@pytest.mark.parametrize("method", [LowActive(), LowActive(n=3, fraction=0.2), LowActive(correlated=False),
                                    NonSpecific(n=1), LowActive(fraction=0.01), Correlation(), RandomOff()], ids=repr)
def test_one_latent_alone_is_decoded_as_in_a_batch(decoder, method):
    z = standard_normal(40, (LATENT,), seed=3)
    with warnings.catch_warnings(action="ignore"):
        for seed in range(10):
            alone, changed = decoder.decode(z[:1], method, seed), int(decoder.changed_)
            torch.testing.assert_close(decoder.decode(z, method, seed)[:1], alone)
            assert int(decoder.changed_[0]) == changed


@pytest.mark.parametrize("of", ["candidates", "active", "layer"])
@pytest.mark.parametrize("method", [LowActive, RandomOff, Correlation, Cluster, TurnOff], ids=lambda m: m.__name__)
def test_a_fraction_of_each_base(decoder, method, of):
    z = standard_normal(60, (LATENT,), seed=4)
    before = activations(decoder, z)
    on = (before > 1e-7).sum(1)
    with warnings.catch_warnings(action="ignore"): decoder.decode(z, method(fraction=0.1, of=of), seed=2)
    alone = method(fraction=0.1).members(decoder.stats_)
    candidates = ((before > 1e-7 if method in (TurnOff, Correlation) else before <= 1e-7) & alone).sum(1)
    base = {"candidates": candidates, "active": on, "layer": torch.full_like(on, WIDTH)}[of]
    wanted = torch.minimum((base.double() * 0.1).long(), candidates if method is not Correlation else WIDTH - on)
    if method is Cluster:  # its candidates are the off members of one cluster
        assert (decoder.changed_ <= wanted).all() and (of == "candidates" or decoder.changed_.any())
    else: assert torch.equal(decoder.changed_, wanted)


def test_a_base_that_is_none_is_refused():
    with pytest.raises(ValueError, match="of='on': expected one of 'candidates', 'active', 'layer'"): LowActive(of="on")


def test_clipped_noise_leaves_no_neuron_below_what_training_saw(decoder):
    z = standard_normal(50, (LATENT,), seed=4)
    free, clipped = (activations(decoder, z, Noisy(n=20, clip=clip)) for clip in (False, True))
    assert free.min() < 0 and torch.equal(clipped, free.clamp_min(0))


def test_turning_off_below_a_leaky_relu_takes_the_lowest_value():
    torch.manual_seed(0)
    generator = nn.Sequential(nn.Linear(5, 30), nn.LeakyReLU(0.2), nn.Linear(30, 4))
    decoder = CreativeDecoder(generator, "1").fit(standard_normal(2000, (5,), seed=0))
    z = standard_normal(9, (5,), seed=1)
    before, after = activations(decoder, z), activations(decoder, z, TurnOff(n=2))
    changed = before != after
    lowest = decoder.stats_.quantiles[0].expand(9, -1)
    assert (before[changed] > 0).all() and torch.equal(after[changed], lowest[changed])
    assert (after[changed] < 0).all() and (changed.sum(1) == 2).all()


class WideGenerator(nn.Module):
    "A map of more units than R can have, many of them seldom on, in groups that go together."
    def __init__(self, groups=50, each=200):
        super().__init__()
        self.weight = nn.Parameter(standard_normal(6, (groups,), seed=0).repeat_interleave(each, 1))
        apart = 1e-3 * torch.arange(groups * each) % 1
        self.bias = nn.Parameter(torch.linspace(-5, 1, groups).repeat_interleave(each) + apart)
        self.act, self.out = nn.ReLU(), nn.Linear(groups * each, 3)

    def forward(self, z): return self.out(self.act(z @ self.weight + self.bias))


def test_low_active_neurons_of_a_layer_too_wide_for_its_correlations():
    wide = CreativeDecoder(WideGenerator(), "act").fit(standard_normal(1500, (6,), seed=1))
    assert not len(wide.stats_.correlation) and len(wide.stats_.rows)
    z = standard_normal(20, (6,), seed=2)
    changed = activations(wide, z) != activations(wide, z, LowActive(n=20))
    assert (changed.sum(1) == 20).all()
    groups = [len({int(i) // 200 for i in row.nonzero().flatten()}) for row in changed]
    assert max(groups) <= 2  # those most correlated with the first are of its group, where it has as many


def test_a_wide_decoder_is_saved_with_what_low_active_needs(tmp_path):
    generator, z = WideGenerator(), standard_normal(5, (6,), seed=2)
    wide = CreativeDecoder(generator, "act").fit(standard_normal(1500, (6,), seed=1))
    wide.save(tmp_path / "wide.safetensors")
    again = CreativeDecoder.load(tmp_path / "wide.safetensors", generator)
    assert torch.equal(again.decode(z, LowActive(n=9)), wide.decode(z, LowActive(n=9)))


class Sampler(nn.Module):
    "A layer that runs nine times for one image."
    def __init__(self):
        super().__init__()
        self.hidden, self.out = nn.Sequential(nn.Linear(8, 40), nn.ReLU()), nn.Linear(40, 8)

    def forward(self, z):
        for _ in range(9): z = z + 0.1 * self.out(self.hidden(z))
        return z


@pytest.mark.parametrize("calls,expected", [("early", (0, 1, 2)), ("middle", (3, 4, 5)), ("late", (6, 7, 8))])
def test_a_third_of_the_calls(calls, expected):
    torch.manual_seed(0)
    generator, z = Sampler(), standard_normal(1000, (8,), seed=0)
    by_name, by_number = (CreativeDecoder(generator, "hidden", calls=c).fit(z) for c in (calls, expected))
    assert by_name.n_calls_ == 9
    assert torch.equal(by_name.decode(z[:7], LowActive(n=2)), by_number.decode(z[:7], LowActive(n=2)))
    assert not torch.equal(by_name.decode(z[:7], LowActive(n=2)), by_name.decode(z[:7], Regular()))


def test_a_third_of_a_single_call_is_refused(decoder):
    once = CreativeDecoder(decoder.generator, "hidden3", calls="early").fit(standard_normal(1000, (LATENT,), seed=0))
    with pytest.raises(ValueError, match="calls='early': layer 'hidden3' runs 1 times per image, expected 3"):
        once.decode(standard_normal(1000, (LATENT,), seed=0)[:2])


def test_a_region_of_the_maps_alone_is_changed():
    torch.manual_seed(0)
    generator, z = ConvGenerator(), standard_normal(300, (12,), seed=0)
    decoder = CreativeDecoder(generator, "up.2", neurons="channel", region=(0.5, 0, 1, 0.5)).fit(z)
    methods = (), (decoder, RandomOff(n=2, scale=3))
    before, after = (activations_of(generator, "up.2", z[:9], *args) for args in methods)
    changed = (before != after).any(1)
    assert changed[:, 4:, :4].any() and not changed[:, :4].any() and not changed[:, :, 4:].any()


@pytest.mark.parametrize("options,message", [
    ({"region": (0, 0, 1, 1)}, "expected None for neurons='unit'"),
    ({"region": (0.5, 0, 0.2, 1), "neurons": "channel"}, "top, left, bottom, right"),
])
def test_a_region_that_is_none(options, message):
    with pytest.raises(ValueError, match=message): CreativeDecoder(ConvGenerator(), "up.2", **options)
