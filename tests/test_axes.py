"Each measure of a set on sets whose answer is known."
import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError

from creative_nb.axes import Axes, Seen, SET_MEASURES, set_measure
from creative_nb.data import load_data
from creative_nb.diversity import precision_recall
from creative_nb.judges import judge_of
from creative_nb.models import pretrained
from creative_nb.novelty import Novelty


@pytest.fixture(scope="module")
def axes():
    vae = pretrained("mnist")
    images = load_data("digits").train.images[:400]
    novelty = Novelty(vae.encode, vae.decode).fit(images)
    return Axes(judge_of(pretrained("mnist", "classifier"), "MNIST classifier"), novelty, pairs=40).fit(images)


def test_every_axis_knows_what_is_more_of_it(axes):
    test = load_data("digits").test.images[:200]
    real, one = axes.score(test), axes.score(test[:1].expand(200, -1, -1, -1))
    more = lambda name, a, b: SET_MEASURES[name].on_axis(a[name]) > SET_MEASURES[name].on_axis(b[name])
    diverse = [m.name for m in SET_MEASURES.values() if m.axis == "diversity"]
    assert all(more(name, real, one) for name in diverse), [n for n in diverse if not more(n, real, one)]
    noise = axes.score(torch.rand(200, 1, 28, 28, generator=torch.Generator().manual_seed(0)))
    assert more("fid", real, noise) and more("recon_distance", noise, real) and more("recall", real, noise)
    assert np.isnan(real["predicted_creativity"])  # no classifier was given


def test_numbers_are_those_of_their_chapters(axes):
    test = load_data("digits").test.images[:100]
    found, seen = axes.score(test), Seen(axes, test)
    assert found["recall"] == precision_recall(axes.features_[:100], seen.features, 5)["recall"]
    distances = axes.novelty.score(test, ["recon_distance"])["recon_distance"]
    assert found["recon_distance"] == pytest.approx(distances.mean().item())
    p = seen.probabilities
    assert found["ice"] == pytest.approx(torch.distributions.Categorical(p).entropy().mean().item() / np.log(2))


def test_without_novelty_its_columns_are_missing(axes):
    data = load_data("digits")
    bare = Axes(axes.judge, pairs=10).fit(data.train.images[:100]).score(data.test.images[:50])
    assert np.isnan(bare["recon_distance"]) and np.isfinite(bare["ice"]) and np.isfinite(bare["fid"])


def test_what_cannot_be_measured_is_told(axes):
    with pytest.raises(NotFittedError): Axes(axes.judge).score(torch.rand(5, 1, 28, 28))
    with pytest.raises(ValueError, match="expected at most the 400 of `fit`"): axes.score(torch.rand(401, 1, 28, 28))
    with pytest.raises(ValueError, match="features differ"): Axes(axes.judge).fit(torch.full((9, 1, 28, 28), 0.5))
    with pytest.raises(ValueError, match="registered already"): set_measure("fid", "fidelity", "again")
