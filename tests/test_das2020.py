"""The experiments of das2020: what they share, what they conclude, and that the committed tables follow from the
committed networks."""
import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms.functional import to_pil_image

from creative_nb import data
from creative_nb.core import repo_root
from creative_nb.das2020.interpolation import interpolate, pairs
from creative_nb.das2020.metric_sweep import cached_row, measure, metric_key, new_row, sweep
from creative_nb.das2020.samples import classifier_metrics, inception_facts
from creative_nb.das2020.sensitivity import by_layer, with_correlation
from creative_nb.das2020.spread import (prediction_intervals, printed_in_interval, rank_correlations,
                                        trainings)
from creative_nb.das2020.vae_losses import accuracy_table
from creative_nb.experiment import Run
from creative_nb.methods import TooFewNeurons
from creative_nb.models import load_model, pretrained
from creative_nb.neurons import low_active
from creative_nb.novelty import reconstruction_distance
from creative_nb.published import value_columns
from creative_nb.training import evaluate

ROOT = repo_root()
MEASURED = ROOT / "data/measured/das2020"
MEASURED_SETS = ["mnist", "fmnist", "combined"]
committed = pytest.mark.skipif(not (ROOT / "data/raw/MNIST/raw").is_dir(), reason="real MNIST is not in data/raw")
SMALL = {"vae": {"hidden": [64, 32], "latent": 8, "epochs": 3}, "classifier": {"epochs": 1}}


def small_run(folder, dataset="digits", **change) -> Run:
    "A run of small networks, whose trainings and results are in `folder`."
    change = {"artifacts": str(folder / "artifacts"), "checkpoints": ""} | SMALL | change
    return Run("das2020", dataset, "smoke", change, out=str(folder / "out"))


@pytest.fixture(scope="module")
def run(tmp_path_factory): return small_run(tmp_path_factory.mktemp("run"))


def test_every_method_of_the_printed_tables_has_a_name(run):
    printed = Run("das2020", "mnist", "paper").printed("table5_mnist_metric_sweep")
    assert set(run.methods) | {"interpolation-2", "interpolation-6", "test"} == set(printed.method)
    with pytest.raises(ValueError, match="unknown loact.*low-active"): run.declared("loact")


def test_settings_make_other_artifacts(run, tmp_path):
    same = run.changed()
    assert same.networks.path("vae") == run.networks.path("vae") and same.networks.key() == run.networks.key()
    other = run.changed(vae={"decoder_dropout": 0.0})
    assert other.networks.path("vae") != run.networks.path("vae")
    assert load_model(other.networks.path("vae")).config["decoder_dropout"] == 0


def test_fewer_neurons_than_asked_are_all_turned_on(run):
    decoder = run.networks.decoder
    pool = int((low_active(decoder.stats_) & decoder.stats_.alive).sum())
    run.sample("low-active", 20, n=pool + 30)
    assert decoder.changed_.max() <= pool and decoder.changed_.max() > 0
    assert run.applies_to("random-off")


def test_a_method_without_neurons_is_an_empty_row(run, monkeypatch):
    def nothing(*a, **k): raise TooFewNeurons("NonSpecific", 1, 0)
    monkeypatch.setattr(run.networks.decoder, "sample", nothing)
    assert not run.applies_to("non-specific") and not new_row(run, "non-specific")["applies"]


@pytest.mark.parametrize("classes", [1, 2])
def test_folders_of_few_classes(tmp_path, classes):
    """Interpolation between more classes than there are is an empty row; between images of the only class it is a
    line like any other."""
    digits = data.load_data("digits").train
    for c in range(classes):
        (tmp_path / "images" / str(c)).mkdir(parents=True)
        for i, image in enumerate(digits.images[digits.labels == c][:60]):
            to_pil_image(image).save(tmp_path / "images" / str(c) / f"{i}.png")
    run = small_run(tmp_path, "folder", root=str(tmp_path / "images"),
                    vae={"hidden": [32, 16], "latent": 4, "epochs": 2})
    table = sweep(run, [1], 20).set_index("method")
    assert table.recon_distance[["regular", "test", "random-off"]].notna().all()
    assert pd.isna(table.recon_distance["interpolation-6"]) and "recon_distance_sd" in table
    assert pd.notna(table.recon_distance["interpolation-2"]) == (classes == 2)
    first, second = pairs(run, 10)
    groups = run.networks.data.train_groups
    assert (first != second).all() and (classes == 1 or (groups[first] != groups[second]).all())
    assert interpolate(run, 10, 3)[1].shape[:2] == (3, 10)


def test_a_row_is_measured_once_and_is_the_plain_mean(run, monkeypatch):
    row, vae = cached_row(run, "low-active", 2, 64), run.networks.vae
    images = run.networks.decoder.sample(64, run.declared("low-active").make(2), seed=0)
    with torch.no_grad(): direct = reconstruction_distance(images, vae.decode(vae.encode(images)))
    assert row["recon_distance"] == pytest.approx(direct.double().mean().item(), rel=1e-5)
    assert row["recon_distance_sd"] == pytest.approx(direct.double().std().item(), rel=1e-4)
    assert row["neurons_changed"] <= 2
    monkeypatch.setattr("creative_nb.das2020.metric_sweep.measure", None)
    assert cached_row(run, "low-active", 2, 64) == row


def test_a_row_is_measured_again_where_its_code_changed(run, monkeypatch):
    "Only the metric whose code is another one."
    cached_row(run, "low-active", 1, 32)
    asked = []
    def watched(run, name, n, samples, metrics): return asked.extend(metrics) or measure(run, name, n, samples, metrics)
    monkeypatch.setattr("creative_nb.das2020.metric_sweep.measure", watched)
    key = "creative_nb.das2020.metric_sweep.metric_key"
    monkeypatch.setattr(key, lambda m: "another" if m.name == "recon_distance" else metric_key(m))
    cached_row(run, "low-active", 1, 32)
    assert asked == ["recon_distance"]


def test_the_combined_set_is_judged_by_the_classifiers_of_its_parts(tmp_path, monkeypatch):
    """Section 8.1: no classifier of its own, both parts' instead, each trained once. Two copies of digits stand in
    for MNIST and FashionMNIST."""
    def digits(name):
        def load(root, split_seed, download): return dataclasses.replace(data.load_data("digits"), name=name)
        load.parts = (name,)
        return load
    for name in ("mnist", "fmnist"): monkeypatch.setitem(data.DATASETS, name, digits(name))
    small = {"vae": {"hidden": [32, 16], "latent": 4, "epochs": 1, "patience": 1}, "data_dir": str(tmp_path)}
    run = small_run(tmp_path, "combined", **small)
    n = run.networks
    assert len(n.data.class_names) == 20 and list(n.classifiers) == ["mnist", "fmnist"]
    table = classifier_metrics(run, 40, [1])
    keys = ["classifier", "method", "n_neurons"]
    assert set(table.classifier) == {"mnist", "fmnist"} and not table.duplicated(keys).any()
    assert set(table.method) >= {"test", "random-images", "regular", "interpolation-2", "low-active", "noisy"}
    assert table.fid.ge(0).all() and table.ice.between(0, np.log2(10)).all()
    assert list(accuracy_table(run).dataset) == ["mnist", "fmnist"]
    facts = inception_facts(run, table, n=1)
    assert not facts.duplicated(["fact", "dataset"]).any() and facts.value.between(1, 10).all()
    run.keep_checkpoints()
    kept = {p.name for p in (tmp_path / "out/checkpoints").glob("*.safetensors")}
    assert kept == {"combined_vae.safetensors", "mnist_classifier.safetensors", "fmnist_classifier.safetensors"}
    pointed = small_run(tmp_path, "combined", **small | {"checkpoints": str(tmp_path / "out/checkpoints")})
    assert {p.path("classifier").parent for p in pointed.networks.parts} == {tmp_path / "out/checkpoints"}


def test_a_draw_is_farther_than_the_mean(run):
    networks, images = run.networks, run.networks.data.test.images[:200]
    with torch.no_grad(): mean = reconstruction_distance(images, networks.vae.decode(networks.vae.encode(images)))
    drawn = networks.distances(images, draw=True)
    assert torch.equal(networks.distances(images), mean) and torch.equal(drawn, networks.distances(images, draw=True))
    assert drawn.mean() > mean.mean()


# ---- spread over trainings ----

def test_every_seed_is_another_training_of_the_same_kind(run):
    own = run.networks.path("vae")
    first, second = (t.networks for t in trainings(run.changed(vae={"file": str(own)}), [0, 1]))
    assert first.path("vae") == own != second.path("vae") and second.vae.config == first.vae.config
    assert not torch.equal(first.vae.decoder.hidden1[0].weight, second.vae.decoder.hidden1[0].weight)
    specs = [t.networks.network("vae")[0] for t in trainings(run, [0, 1], epochs=30)]
    assert [(s.epochs, s.schedule.decay_after, s.file) for s in specs] == [(30, 3, "")] * 2
    for bad in ([], [1, 1]):
        with pytest.raises(ValueError, match="seeds="): trainings(run, bad)


def test_the_vae_can_have_a_seed_of_its_own(run):
    other, same = run.changed(vae={"seed": 1}), run.changed(seed=1)
    assert other.networks.path("vae") == same.networks.path("vae") != run.networks.path("vae")
    assert other.networks.path("classifier") == run.networks.path("classifier")
    assert other.provenance()["vae_seed"] == 1 and other.provenance()["seed"] == 0
    given = other.changed(vae={"file": str(other.networks.path("vae"))})
    assert [bool(t.setting.vae.get("file")) for t in trainings(given, [0, 1])] == [False, True]


def test_earlier_trainings_are_judged_again_from_their_tables(run, tmp_path, monkeypatch):
    monkeypatch.setattr("creative_nb.experiment.shelf", lambda *a: str(tmp_path))
    with pytest.raises(FileNotFoundError, match="where='smoke': no spread.csv in"): run.earlier_table("spread", "smoke")
    (tmp_path / "tables").mkdir()
    for folder, value in ((tmp_path, 1), (tmp_path / "tables", 2)):
        pd.DataFrame({"seed": [value]}).to_csv(folder / "spread.csv", index=False)
    assert [run.earlier_table("spread", where).seed.item() for where in ("released", "smoke")] == [1, 2]


@settings(deadline=None)
@given(st.lists(st.floats(-100, 100), min_size=2, max_size=6), st.floats(0.5, 0.99))
def test_prediction_interval_is_scipys(values, level):
    "For one more draw: Student's t around the mean, its scale widened by the uncertainty of the mean."
    k, mean, sd = len(values), np.mean(values), np.std(values, ddof=1)
    cell = prediction_intervals(pd.DataFrame({"method": "a", "seed": range(k), "x": values}), ["method"],
                                level=level).iloc[0]
    if sd > 1e-6:
        low, high = scipy.stats.t.interval(level, k - 1, loc=mean, scale=sd * np.sqrt(1 + 1 / k))
        assert [cell.low, cell.high] == pytest.approx([low, high], rel=1e-9, abs=1e-9)


def test_prediction_interval_covers_as_often_as_it_says():
    draws = np.random.default_rng(0).normal(3, 2, size=(4000, 4))
    methods, seeds = np.repeat(np.arange(4000), 3), np.tile(range(3), 4000)
    table = pd.DataFrame({"method": methods, "seed": seeds, "x": draws[:, :3].ravel()})
    fourth = pd.DataFrame({"method": range(4000), "x": draws[:, 3]})
    inside = printed_in_interval(prediction_intervals(table, ["method"]), fourth, ["method"], half_unit=0).inside
    assert inside.mean() == pytest.approx(0.95, abs=0.015)


def test_order_of_the_methods():
    printed = pd.DataFrame({"method": ["a", "b", "c", "d"], "n_neurons": 5, "recon_distance": [1, 2, 3, np.nan]})
    table = lambda seed, values: pd.DataFrame({"method": ["c", "b", "a", "d"], "n_neurons": 5, "recon_distance": values,
                                               "seed": seed})
    tables = [table(1, [3.0, 2, 1, 0]), table("full", [1.0, 2, 3, 9]), table(0, [2.0, 3, 1, np.nan]),
              table(1, 9.0).assign(n_neurons=1)]
    found = rank_correlations(pd.concat(tables), printed, 5)
    assert found.to_dict() == pytest.approx({1: 1.0, "full": -1.0, 0: 0.5})


def test_around_one_full_training_the_interval_is_wider():
    trained = pd.DataFrame({"method": "a", "seed": range(3), "x": [1.0, 2.0, 3.0]})
    cell = prediction_intervals(trained, ["method"], pd.DataFrame({"method": ["a"], "x": [7.0]})).iloc[0]
    half = scipy.stats.t.ppf(0.975, 2) * np.sqrt(2)
    assert (cell.centre, cell.low, cell.high) == pytest.approx((7, 7 - half, 7 + half))


def test_one_training_has_no_interval():
    cell = prediction_intervals(pd.DataFrame({"method": ["a"], "seed": [0], "x": [1.0]}), ["method"]).iloc[0]
    assert cell["mean"] == 1 and np.isnan([cell.low, cell.high]).all()


# ---- open choices ----

def test_another_affinity_gives_other_clusters_and_leaves_the_decoder_alone(run):
    decoder = run.networks.decoder
    before = decoder.stats_.correlation.clone()
    other = with_correlation(decoder, torch.abs)
    assert torch.equal(other.stats_.correlation, before.abs()) and torch.equal(decoder.stats_.correlation, before)
    assert other.stats_._clusters is not decoder.stats_._clusters


def test_every_layer_can_be_changed(run):
    decoders = by_layer(run)
    assert list(decoders) == ["hidden2", "hidden1"] and decoders["hidden2"] is run.networks.decoder
    assert decoders["hidden1"].stats_.width == 32


# ---- what is committed ----

@committed
@pytest.mark.parametrize("dataset", MEASURED_SETS)
def test_a_committed_sweep_has_every_row(dataset):
    path, run = MEASURED / dataset / "metric_sweep.csv", Run("das2020", dataset, "paper")
    ours, printed = pd.read_csv(path), run.printed(run.printed_name("metric_sweep"))
    columns = value_columns(printed)
    assert set(printed.columns) <= set(ours.columns) and {f"{c}_sd" for c in columns} <= set(ours.columns)
    assert set(zip(ours.n_neurons, ours.method)) == set(zip(printed.n_neurons, printed.method)) | {(0, "regular")}
    assert ours[columns].notna().all().all() and not ours.duplicated(["n_neurons", "method"]).any()
    about = json.loads(path.with_suffix(".json").read_text())
    assert about["scale"] == "paper" and about["dataset"] == dataset and about["samples"] == 15_000
    assert "-dirty" not in about["commit"]


@committed
@pytest.mark.parametrize("dataset", MEASURED_SETS)
def test_committed_numbers_follow_from_the_committed_networks(dataset):
    "Losses, accuracy, dead neurons, and D_r of one row at full size, from the files in data/checkpoints."
    run = Run("das2020", dataset, "paper", {"device": "cpu"})
    n, vae = run.networks, run.networks.vae
    assert n.path("vae") == ROOT / f"data/checkpoints/{dataset}_vae.safetensors"
    losses = pd.read_csv(MEASURED / "all/table3_vae_losses.csv").set_index("dataset").loc[dataset]
    test = evaluate(vae, n.data.test)
    nll = test["nll"] / vae.config["nll_weight"] * (1000 if dataset == "combined" else 1)
    measured = [nll + test["kl"], nll, test["kl"]]
    assert measured == pytest.approx(losses[["total", "nll", "kl"]].tolist(), rel=1e-3)
    facts = pd.read_csv(MEASURED / "all/facts.csv").set_index(["dataset", "fact"]).value
    if dataset != "combined":
        accuracy = 1 - evaluate(n.classifier, n.data.test)["error"]
        assert accuracy == pytest.approx(facts[dataset, "classifier_test_accuracy"], abs=2e-4)
    dead = int((~n.decoder.stats_.alive).sum())
    assert dead == pytest.approx(facts[dataset, "dead_neurons_layer3"], abs=1)
    images = run.sample("low-active", 15_000)
    with torch.no_grad(): d = reconstruction_distance(images, vae.decode(vae.encode(images)))
    row = pd.read_csv(MEASURED / dataset / "metric_sweep.csv").query("method == 'low-active' and n_neurons == 5")
    assert d.double().mean().item() == pytest.approx(row.recon_distance.item(), rel=1e-3)


@committed
@pytest.mark.parametrize("dataset", MEASURED_SETS)
def test_pretrained_decodes(dataset):
    vae = pretrained(dataset)
    assert vae.decode(torch.zeros(2, vae.config["latent"])).shape == (2, 1, 28, 28)
    assert vae.about["dataset"] == dataset
