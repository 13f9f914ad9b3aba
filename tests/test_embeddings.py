"""Activation maximisation against a slow loop of one trial at a time, and what must hold of every search."""
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch
from torch import nn

from creative_nb.biggan import ResidualDiscriminator, SmallBigGAN
from creative_nb.classifiers import StridedClassifier
from creative_nb.conditional import ClassConditional, conditional
from creative_nb.core import rng, standard_normal
from creative_nb.embeddings import (BIGGAN_SD, FINETUNING, NOISE, RECIPES, ActivationMaximization, Recipe,
                                    distance_moved, favourites, log_probability, noised, pair_diversity, realism,
                                    starts)

SMALL = replace(RECIPES["AM-S"], steps=12, latents=6, redraw=5, pairs=4)


@pytest.fixture(scope="module")
def networks():
    torch.manual_seed(0)
    generator = conditional(SmallBigGAN((1, 8, 8), 4, (8, 8), 10, 6))
    classifier = StridedClassifier((1, 8, 8), 4, (8, 8)).eval().requires_grad_(False)
    return generator, classifier


def test_any_network_that_says_its_class_embeddings():
    class Own(nn.Module):
        def __init__(self, latent=2, width=3):
            super().__init__()
            self.config, self.table = {"latent": latent, "width": width}, nn.Parameter(torch.randn(5, width))

        def embedded(self, z, embeddings): return (z.sum(1) + embeddings.sum(1)).reshape(-1, 1, 1, 1).sigmoid()

        def class_embeddings(self): return self.table.detach()

    net = Own()
    generator = conditional(net)
    assert torch.equal(generator.embeddings, net.table) and generator.name == "Own"
    assert generator.sample(generator.latents(4, seed=0), generator.embeddings[0]).shape == (4, 1, 1, 1)
    assert net.table.requires_grad and not generator.module.table.requires_grad  # a copy
    del Own.class_embeddings
    with pytest.raises(TypeError, match="model=Own"): conditional(Own())


def one_trial(generator, classifier, recipe, target, trial, seed=0):
    "The embedding that one search finds, written as the thesis tells it, one step after the other."
    name = lambda what, *more: " ".join(map(str, (what, target, trial, *more)))
    begin = generator.embeddings[target] if recipe.start == "own" else generator.embeddings.mean(0)
    noise = standard_normal(1, begin.shape, seed, name("start"))[0]
    c = (begin + recipe.noise * generator.scale * noise).clone().requires_grad_()
    adam = torch.optim.Adam([c], recipe.lr * generator.scale, weight_decay=recipe.decay)
    possible = [*combinations(range(recipe.latents), 2)]
    for step in range(recipe.steps):
        turn = step // recipe.redraw
        z = standard_normal(recipe.latents, generator.latent_shape, seed, name("z", turn))
        chosen = rng(seed, "pairs", str(target), str(trial), str(turn)).permutation(len(possible))[:recipe.pairs]
        used = c if recipe.projected else c.clamp(*generator.limits)
        images = torch.cat([generator(z[i:i + 1], used[None]) for i in range(recipe.latents)])
        logits = classifier(images)
        value = torch.stack([row.log_softmax(0)[target] for row in logits]).mean()
        seen = {"softmax": logits.softmax(1), "pixels": images.flatten(1),
                "features": classifier.features(images)}[recipe.measure]
        if recipe.diversity:
            shares = [(seen[i] - seen[j]).norm() / (z[i] - z[j]).norm() for i, j in (possible[k] for k in chosen)]
            value = value + recipe.diversity * torch.stack(shares).mean()
        adam.zero_grad()
        (-value).backward()
        adam.step()
        if recipe.projected: c.data.clamp_(*generator.limits)
    return c.detach().clamp(*generator.limits)


@pytest.mark.parametrize("recipe", [
    SMALL, replace(SMALL, start="mean", lr=0.5), replace(SMALL, diversity=2.0),
    replace(SMALL, diversity=1.0, measure="pixels"), replace(SMALL, diversity=1.0, measure="features"),
    replace(SMALL, decay=0.9, projected=False, lr=0.5)],
    ids=["own", "mean", "softmax", "pixels", "features", "released"])
def test_all_trials_at_once_find_what_one_at_a_time_finds(networks, recipe):
    generator, classifier = networks
    search = ActivationMaximization(recipe, trials=2)
    found = search.fit(generator, log_probability(classifier), [0, 3], classifier.features)
    for i, k in enumerate((0, 3)):
        for t in range(2):
            slow = one_trial(generator, classifier, recipe, k, t)
            assert (found.embeddings_[i, t] - slow).norm() < 2e-3 * generator.scale * recipe.lr * recipe.steps


def test_printed_numbers_for_biggans_table():
    table = torch.randn(2000, 64) * BIGGAN_SD
    generator = ClassConditional(lambda z, c: c, table, (1,))
    for name, step in (("AM-S", 0.01), ("AM-L", 0.1), ("AM-D-S", 0.01), ("AM-D-L", 0.1)):
        assert RECIPES[name].lr * generator.scale == pytest.approx(step, rel=0.02)
        assert RECIPES[name].noise * generator.scale == pytest.approx(0.1, rel=0.02)
    added = noised(generator, table[:50], NOISE["Noise-L"], list(range(50)), 4) - table[:50, None]
    assert added.std().item() == pytest.approx(0.3, rel=0.03)


def test_a_search_whose_answer_is_known():
    "Images are the embedding itself and the classifier is linear, so the target's direction is the way up."
    directions = torch.eye(4)
    table = torch.randn(4, 4, generator=torch.Generator().manual_seed(1))
    generator = ClassConditional(lambda z, c: c + 0 * z[:, :1], table, (2,), value_range=(-9, 9))
    search = ActivationMaximization(Recipe(lr=0.2, steps=150, noise=0.0), trials=1)
    found = search.fit(generator, log_probability(lambda x: x @ directions.T), [0, 1, 2, 3]).embeddings_[:, 0]
    low, high = generator.limits
    assert torch.allclose(found.diagonal(), torch.full((4,), high)), "the target's entry is as high as it may be"
    assert torch.allclose(found[~torch.eye(4, dtype=bool)], torch.full((12,), low), atol=0.05), "the others as low"
    assert search.trace_.groupby("step").score.mean().is_monotonic_increasing


def test_a_negative_weight_makes_images_alike(networks):
    generator, classifier = networks
    z = generator.latents(40, 1)
    spread = lambda c: generator.sample(z, c).std(0).mean()
    alike = replace(SMALL, diversity=-20.0, measure="pixels", steps=60, lr=0.3)
    search = ActivationMaximization(alike, trials=1).fit(generator, log_probability(classifier), [0, 1])
    found = search.embeddings_[:, 0]
    for k, c in enumerate(found): assert spread(c) < spread(generator.embeddings[k])


def test_what_is_searched_for_beside_it_changes_nothing(networks):
    generator, classifier = networks
    both = ActivationMaximization(SMALL, trials=2).fit(generator, log_probability(classifier), [1, 2])
    split = ActivationMaximization(SMALL, trials=2, at_once=1).fit(generator, log_probability(classifier), [2, 1])
    assert torch.allclose(both.embeddings_, split.embeddings_.flip(0), atol=1e-5)


def test_kept_steps_and_the_frozen_networks(networks):
    generator, classifier = networks
    before = [p.clone() for p in (*generator.module.parameters(), *classifier.parameters())]
    search = ActivationMaximization(SMALL, trials=2, keep=(0, 3, 12)).fit(generator, log_probability(classifier), [1])
    assert torch.equal(search.kept_[12], search.embeddings_) and search.kept_[0].shape == (1, 2, 6)
    assert torch.equal(search.kept_[0], starts(generator, log_probability(classifier), SMALL, [1], 2))
    assert all(map(torch.equal, before, (*generator.module.parameters(), *classifier.parameters())))
    moved = [distance_moved(generator, search.kept_[s], search.kept_[0][:, 0]).mean().item() for s in (0, 3, 12)]
    assert moved == sorted(moved)


def test_a_killed_search_goes_on_and_a_changed_one_is_refused(networks, tmp_path):
    generator, classifier = networks
    path, objective = tmp_path / "found.safetensors", log_probability(classifier)
    ActivationMaximization(SMALL, trials=2, state=path, at_once=1).fit(generator, objective, [0])
    size = path.stat().st_size
    resumed = ActivationMaximization(SMALL, trials=2, state=path, at_once=1).fit(generator, objective, [0, 2])
    assert path.stat().st_size > size
    whole = ActivationMaximization(SMALL, trials=2, at_once=1).fit(generator, objective, [0, 2])
    assert torch.equal(resumed.embeddings_, whole.embeddings_)
    for changed in (dict(recipe=replace(SMALL, lr=0.3)), dict(seed=1), dict(trials=3)):
        with pytest.raises(ValueError, match="of another search"):
            search = ActivationMaximization(**{"recipe": SMALL, "trials": 2, "state": path} | changed)
            search.fit(generator, objective, [0])
    with torch.no_grad(): other = conditional(SmallBigGAN((1, 8, 8), 4, (8, 8), 10, 6))
    with pytest.raises(ValueError, match="of another search"):
        ActivationMaximization(SMALL, trials=2, state=path).fit(other, objective, [0])


def test_favourites_are_the_most_probable():
    generator = ClassConditional(lambda z, c: c + 0 * z[:, :1], torch.eye(3), (1,))
    logits = torch.tensor([[0.0, 5, 2], [5, 0, 0], [0, 0, 5]])  # of images of each class, by target
    objective = log_probability(lambda x: x @ logits)
    assert favourites(generator, objective, 1, 1).item() == 0
    assert favourites(generator, objective, 0, 1).item() == 1
    top = starts(generator, objective, Recipe(start="top"), [2], 2)
    assert torch.equal(top[0, 0], torch.eye(3)[2]) and torch.equal(top[0, 1], torch.eye(3)[0])


def test_finetuning_follows_the_discriminator(networks):
    generator, _ = networks
    torch.manual_seed(1)
    discriminator = ResidualDiscriminator((1, 8, 8), 4, (8, 8)).eval().requires_grad_(False)
    search = ActivationMaximization(replace(FINETUNING, lr=0.3), trials=2)
    search.fit(generator, realism(discriminator), [0, 1])
    first, last = (search.trace_[search.trace_.step == s].score.mean() for s in (0, 9))
    assert last > first


def test_bad_requests_are_told_before_any_work(networks):
    generator, classifier = networks
    objective = log_probability(classifier)
    with pytest.raises(ValueError, match="class 7 has no embedding"):
        ActivationMaximization(SMALL, trials=1).fit(generator, objective, [7])
    with pytest.raises(ValueError, match="each once"): ActivationMaximization(SMALL).fit(generator, objective, [1, 1])
    with pytest.raises(ValueError, match="features=None"):
        ActivationMaximization(replace(SMALL, diversity=1.0, measure="features")).fit(generator, objective, [1])
    with pytest.raises(ValueError, match="trials=9"):
        ActivationMaximization(replace(SMALL, start="top"), trials=9).fit(generator, objective, [1])
    with pytest.raises(ValueError, match="class 2, expected one of the 2"):
        ActivationMaximization(SMALL).fit(generator, log_probability(lambda x: x.flatten(1)[:, :2]), [1, 2])
    with pytest.raises(ValueError, match="no logits"):
        mean = realism(lambda x, k: x.mean((1, 2, 3)))
        ActivationMaximization(replace(SMALL, diversity=1.0)).fit(generator, mean, [1])
    with pytest.raises(ValueError, match="latents=1"):
        ActivationMaximization(replace(SMALL, diversity=1.0, latents=1)).fit(generator, objective, [1])
    wide = ClassConditional(lambda z, c: 3 * c - 1, generator.embeddings, (1,))
    with pytest.raises(ValueError, match="value_range=.0.0, 1.0.: the images go from"):
        wide.sample(torch.zeros(4, 1), generator.embeddings)
    broken = log_probability(lambda x: torch.full((len(x), 4), torch.nan) + x.sum())
    with pytest.raises(FloatingPointError, match="not finite at step 0"):
        ActivationMaximization(SMALL, trials=1).fit(generator, broken, [1])


def test_pair_diversity_by_hand():
    random = np.random.default_rng(0)
    seen, z = (torch.from_numpy(random.standard_normal((2, 5, d))) for d in (3, 4))
    pairs = torch.tensor([[[0, 1], [2, 4]], [[1, 3], [0, 2]]])
    share = lambda r, i, j: np.linalg.norm(seen[r, i] - seen[r, j]) / np.linalg.norm(z[r, i] - z[r, j])
    by_hand = [np.mean([share(r, i, j) for i, j in pairs[r]]) for r in range(2)]
    assert np.allclose(pair_diversity(seen, z, pairs), by_hand)


def test_a_strangers_generator_in_three_lines():
    "Any function of a latent and a vector will do, with its table."
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3 + 2, 16), nn.Tanh(), nn.Linear(16, 16), nn.Sigmoid()).requires_grad_(False)
    generator = ClassConditional(lambda z, c: net(torch.cat([z, c], 1)).view(-1, 1, 4, 4), torch.eye(2), (3,))
    classifier = nn.Sequential(nn.Flatten(), nn.Linear(16, 2)).requires_grad_(False)
    search = ActivationMaximization(replace(RECIPES["AM-L"], steps=40), trials=3)
    search.fit(generator, log_probability(classifier), [0, 1])
    assert search.embeddings_.shape == (2, 3, 2)
    score = search.trace_.groupby("step").score.mean()
    assert score.iloc[-1] > score.iloc[0]
