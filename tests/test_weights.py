"Weights: what they promise, and that trainers draw by them."
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from creative_nb.data import check_data, load_data, Split
from creative_nb.models import VAE
from creative_nb.training import Schedule, train_epoch
from creative_nb.weights import (diversity_weights, effective_size, imbalanced, inverse_density, inverse_frequency,
                                 long_tail)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=40), st.floats(0, 2))
def test_classes_are_evened_by_their_power(labels, power):
    y = torch.tensor(labels)
    w = inverse_frequency(y, power)
    counts = torch.bincount(y).double()
    assert abs(w.sum() - 1) < 1e-9 and 1 - 1e-9 <= effective_size(w) <= len(y) + 1e-6
    mass = torch.zeros(len(counts), dtype=torch.double).index_add_(0, y, w)
    used = counts > 0
    expected = counts[used] ** (1 - power)
    assert torch.allclose(mass[used] / mass[used].sum(), expected / expected.sum())


def test_what_is_far_from_others_weighs_more():
    x = torch.cat([torch.randn(200, 3, generator=torch.Generator().manual_seed(0)) / 10, torch.tensor([[9.0, 9, 9]])])
    w = inverse_density(x, k=5)
    assert w.argmax() == 200 and abs(w.sum() - 1) < 1e-9
    alike = inverse_density(torch.ones(20, 2), k=3)
    assert torch.allclose(alike, torch.full((20,), 0.05).double())
    with pytest.raises(ValueError, match="expected more than 10 images"): inverse_density(torch.rand(10, 2))


def test_diversity_weights_are_those_of_the_kernel_matrix():
    "The same steps on the N x N matrix of the published code, decomposed in full."
    x = torch.randn(30, 5, generator=torch.Generator().manual_seed(1)).double()
    x = x / x.norm(dim=1, keepdim=True)
    logits = torch.zeros(30, dtype=torch.double, requires_grad=True)
    adam, entropy = torch.optim.Adam([logits], lr=0.1), lambda p: -(p.clamp(min=1e-12) * p.clamp(min=1e-12).log()).sum()
    for step in range(40):
        for group in adam.param_groups: group["lr"] = 0.1 * 0.99 ** (step // 5)
        w = logits.softmax(0)
        spectrum = torch.linalg.eigvalsh(w.sqrt()[:, None] * (x @ x.T) * w.sqrt() + 1e-13 * torch.eye(30))
        loss = -(0.5 * entropy(spectrum).exp() + 0.5 * entropy(w))
        adam.zero_grad(), loss.backward(), adam.step()
    assert torch.allclose(diversity_weights(x, 0.5, steps=40), logits.detach().softmax(0), atol=1e-4)


def test_sizes_and_long_tails():
    y = load_data("digits").train.labels
    at = imbalanced(y, [3, 0, 5, 0, 0, 0, 0, 0, 0, 1], seed=1)
    assert torch.bincount(y[at], minlength=10).tolist() == [3, 0, 5, 0, 0, 0, 0, 0, 0, 1]
    assert sorted(long_tail(4, 80, 10, seed=3)) == [10, 20, 40, 80]
    with pytest.raises(ValueError, match="images of class 0, expected at most"): imbalanced(y, [10**6])


def test_training_draws_by_weights_and_without_them_as_before():
    data = load_data("digits")
    seen = []
    class Listening(VAE):
        def losses(self, x, labels):
            seen.append(labels)
            return super().losses(x, labels)
    def counts(split):
        seen.clear()
        torch.manual_seed(0)
        model = Listening(hidden=(8,), latent=2)
        train_epoch(model, split, torch.optim.Adam(model.parameters()), 64, seed=0, epoch=1, schedule=Schedule())
        return torch.bincount(torch.cat(seen), minlength=10)
    assert torch.equal(counts(data.train), torch.bincount(data.train.labels))
    only = replace(data.train, weights=(data.train.labels == 3).double())
    assert counts(only)[3] == len(data.train)


def test_weights_are_checked_and_part_of_what_is_trained_on():
    data = load_data("digits")
    weighted = replace(data, train=replace(data.train, weights=torch.ones(len(data.train))))
    assert weighted.content_hash != data.content_hash
    check_data(weighted)
    for bad in (torch.ones(3), -torch.ones(len(data.train)), torch.zeros(len(data.train))):
        with pytest.raises(ValueError, match="expected a weight of 0 or more"):
            check_data(replace(data, train=replace(data.train, weights=bad)))
    part = weighted.train[data.train.labels == 2]
    assert isinstance(part, Split) and len(part.weights) == len(part) and np.all(part.labels.numpy() == 2)
    assert len(weighted.without(["3"]).train.weights) == len(weighted.without(["3"]).train)
