"""Committed numbers, recomputed from the committed networks: the house may be rebuilt, the digits stay.

A row of the sweep is an average over 15,000 images, so another processor's rounding moves it
by far less than `CLOSE`."""
from pathlib import Path

import pandas as pd
import pytest

from creative_nb.core import repo_root
from creative_nb.experiment import Run
from creative_nb.runs import read_table
from creative_nb.training import evaluate

CLOSE = 1e-4  # relative
RAW = repo_root() / "data" / "raw"
pytestmark = [pytest.mark.real_data, pytest.mark.skipif(not (RAW / "FashionMNIST").is_dir(),
                                                        reason="no MNIST files in data/raw")]


def committed(setting: str, table: str) -> pd.DataFrame:
    return read_table(repo_root() / "data" / "measured" / "das2020" / setting / f"{table}.csv")


@pytest.fixture(scope="module", params=["mnist", "fmnist"])
def run(request):
    return Run("das2020", request.param, "paper")


def test_the_committed_networks_serve(run):
    for kind in ("vae", "classifier"):
        path = run.networks.path(kind)
        assert path.parent == Path(repo_root() / "data" / "checkpoints"), path


@pytest.mark.parametrize("method", ["regular", "low-active", "three-clusters", "noisy", "interpolation-2"])
def test_reconstruction_distances_of_the_sweep(run, method):
    rows = committed(run.setting.name, "metric_sweep").query("method == @method and n_neurons in (0, 5)")
    row = rows.iloc[0]
    images = run.sample(method, int(row.samples), int(row.n_neurons) or 5)
    distances = run.networks.distances(images).double()
    assert distances.mean().item() == pytest.approx(row.recon_distance, rel=CLOSE)
    assert distances.std().item() == pytest.approx(row.recon_distance_sd, rel=10 * CLOSE)


def test_losses(run):
    test, row = evaluate(run.networks.vae, run.networks.data.test), committed(run.setting.name, "vae_losses").iloc[0]
    assert test["kl"] == pytest.approx(row.kl, rel=CLOSE) and test["nll"] == pytest.approx(row.nll, rel=CLOSE)


def test_counts_of_neurons(run):
    facts = committed(run.setting.name, "neurons").set_index("fact").value
    stats = run.networks.decoder.stats_
    assert int((~stats.alive).sum()) == facts["dead_neurons_layer3"]
    assert stats.off[1].item() == pytest.approx(facts["off_neurons_std"], rel=CLOSE)
