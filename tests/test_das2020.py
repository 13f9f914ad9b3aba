"The experiments of das2020: what they share, what they conclude, and that the committed tables follow from the committed networks."
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
from creative_nb.das2020.interpolation import along, pairs
from creative_nb.das2020.metric_sweep import COLUMNS, kept_row, measure, sweep
from creative_nb.das2020.samples import classifier_table, inception_facts
from creative_nb.das2020.sensitivity import by_layer, with_correlation
from creative_nb.das2020.spread import beside_intervals, earlier_trainings, intervals, rank_correlations, trainings
from creative_nb.das2020.study import METHODS, Study, method_of, sweep_table
from creative_nb.das2020.vae_losses import accuracy_table
from creative_nb.decode import TooFewNeurons
from creative_nb.models import load_model, pretrained
from creative_nb.novelty import reconstruction_distance
from creative_nb.published import published
from creative_nb.training import evaluate

ROOT = repo_root()
MEASURED = ROOT / "data/measured"
MEASURED_SETS = [d for d in ("mnist", "fmnist", "combined") if (MEASURED / f"{sweep_table(d)}.csv").is_file()]
committed = pytest.mark.skipif(not MEASURED_SETS or not (ROOT / "data/raw/MNIST/raw").is_dir(), reason="real MNIST is not in data/raw")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    return Study("digits", hidden=(64, 32), latent=8, epochs=3, classifier_epochs=1, artifacts=folder / "artifacts", out=folder / "out")


def test_every_method_of_the_tables_has_a_name():
    assert set(METHODS) | {"2interp", "6interp", "test"} == set(published(sweep_table("mnist")).method)
    with pytest.raises(ValueError, match="name='low-active'.*loact"): method_of("low-active")


def test_settings_make_other_artifacts(study):
    same = Study("digits", hidden=(64, 32), latent=8, epochs=3, classifier_epochs=1, artifacts=study.artifacts, out=study.out)
    assert same.vae_path == study.vae_path and same.key("novelty") == study.key("novelty")
    other = Study("digits", hidden=(64, 32), latent=8, epochs=3, artifacts=study.artifacts, vae_options={"decoder_dropout": 0.0})
    assert other.vae_path != study.vae_path and load_model(other.vae_path).config["decoder_dropout"] == 0


def test_fewer_neurons_than_asked_are_all_turned_on(study):
    pool = int(method_of("loact").pool(study.decoder.stats_).sum())
    study.sample("loact", 20, n=pool + 30)
    assert study.decoder.changed_.max() <= pool and study.decoder.changed_.max() > 0
    assert study.has("rand")


def test_a_method_without_neurons_is_an_empty_row(study, monkeypatch):
    def nothing(*a, **k): raise TooFewNeurons("NonSpecific", 1, 0)
    monkeypatch.setattr(study.decoder, "sample", nothing)
    assert not study.has("ent") and measure(study, "ent", 5, 10) == {}


@pytest.mark.parametrize("classes", [1, 2])
def test_folders_of_few_classes(tmp_path, classes):
    "Interpolation between more classes than there are is an empty row; between images of the only class it is a line like any other."
    digits = data.load_data("digits").train
    for c in range(classes):
        (tmp_path / "images" / str(c)).mkdir(parents=True)
        for i, image in enumerate(digits.images[digits.labels == c][:60]): to_pil_image(image).save(tmp_path / "images" / str(c) / f"{i}.png")
    study = Study("folder", data_dir=tmp_path / "images", hidden=(32, 16), latent=4, epochs=2, artifacts=tmp_path / "artifacts", out=tmp_path / "out")
    table = sweep(study, [1], 20).set_index("method")
    assert table.recon_distance[["regular", "test", "rand"]].notna().all() and pd.isna(table.recon_distance["6interp"])
    assert pd.notna(table.recon_distance["2interp"]) == (classes == 2) and "recon_distance_sd" in table
    first, second = pairs(study, 10)
    groups = study.data.train_groups
    assert (first != second).all() and (classes == 1 or (groups[first] != groups[second]).all())
    assert along(study, 10, 3)[1].shape[:2] == (3, 10)


def test_a_row_is_measured_once_and_is_the_plain_mean(study, monkeypatch):
    row = kept_row(study, "loact", 2, 64)
    images = study.decoder.sample(64, method_of("loact", 2), seed=0)
    with torch.no_grad(): direct = reconstruction_distance(images, study.vae.decode(study.vae.encode(images)))
    assert row["recon_distance"] == pytest.approx(direct.double().mean().item(), rel=1e-5) and row["neurons_changed"] <= 2
    assert row["recon_distance_sd"] == pytest.approx(direct.double().std().item(), rel=1e-4)
    monkeypatch.setattr("creative_nb.das2020.metric_sweep.measure", None)
    assert kept_row(study, "loact", 2, 64) == row


def test_the_combined_set_is_judged_by_the_classifiers_of_its_parts(tmp_path, monkeypatch):
    "Section 8.1: no classifier of its own, both parts' instead, each trained once. Two copies of digits stand in for MNIST and FashionMNIST."
    def digits(name): return lambda *a, **k: dataclasses.replace(data.load_data("digits"), name=name)
    for name in ("mnist", "fmnist"):
        monkeypatch.setattr(data, f"_{name}", digits(name))
        monkeypatch.setitem(data.DATASETS, name, digits(name))
    folders = dict(artifacts=tmp_path / "artifacts", out=tmp_path / "out", data_dir=tmp_path)
    study = Study("combined", hidden=(32, 16), latent=4, epochs=1, classifier_epochs=1, **folders)
    assert len(study.data.class_names) == 20 and list(study.judges) == ["mnist", "fmnist"]
    table = classifier_table(study, 40, [1])
    assert set(table.classifier) == {"mnist", "fmnist"} and not table.duplicated(["classifier", "method", "n_neurons"]).any()
    assert set(table.method) >= {"test", "random_images", "regular", "2interp", "loact", "noise"} and table.fid.ge(0).all() and table.ice.between(0, np.log2(10)).all()
    assert list(accuracy_table(study).dataset) == ["mnist", "fmnist"]
    facts = inception_facts(table, n=1)
    assert not facts.duplicated(["fact", "dataset"]).any() and facts.value.between(1, 10).all()
    study.keep_checkpoints()
    kept = {p.name for p in (tmp_path / "out/checkpoints").iterdir()}
    assert kept == {"combined_vae.safetensors", "mnist_classifier.safetensors", "fmnist_classifier.safetensors"}
    pointed = Study("combined", classifier_file=str(tmp_path / "out/checkpoints/{dataset}_classifier.safetensors"), **folders)
    assert [j.classifier_path.name for j in pointed.judges.values()] == ["mnist_classifier.safetensors", "fmnist_classifier.safetensors"]


def test_a_draw_is_farther_than_the_mean(study):
    images = study.data.test.images[:200]
    with torch.no_grad(): mean = reconstruction_distance(images, study.vae.decode(study.vae.encode(images)))
    assert torch.equal(study.distances(images), mean) and torch.equal(study.distances(images, draw=True), study.distances(images, draw=True))
    assert study.distances(images, draw=True).mean() > mean.mean()


# ---- spread over trainings ----

def test_every_seed_is_another_training_of_the_same_kind(study):
    first, second = trainings(dataclasses.replace(study, vae_file=str(study.vae_path)), [0, 1])
    assert first.vae_path == study.vae_path and second.vae_path != first.vae_path and second.vae.config == first.vae.config
    assert not torch.equal(first.vae.decoder.hidden1[0].weight, second.vae.decoder.hidden1[0].weight)
    assert [(t.epochs, t.patience, t.vae_file) for t in trainings(study, [0, 1], epochs=30)] == [(30, 3, "")] * 2
    for bad in ([], [1, 1]):
        with pytest.raises(ValueError, match="seeds="): trainings(study, bad)


def test_the_vae_can_have_a_seed_of_its_own(study):
    other = dataclasses.replace(study, vae_seed=1)
    assert other.vae_path == dataclasses.replace(study, seed=1, vae_seed=None).vae_path != study.vae_path and other.classifier_path == study.classifier_path
    assert other.provenance()["vae_seed"] == 1 and other.provenance()["seed"] == 0
    given = dataclasses.replace(other, vae_file=str(other.vae_path))
    assert [bool(t.vae_file) for t in trainings(given, [0, 1])] == [False, True]


def test_earlier_trainings_are_judged_again_from_their_tables(tmp_path):
    with pytest.raises(ValueError, match="trained_in=.*no das2020_x_spread_networks.csv and no das2020_x_spread.csv"): earlier_trainings(str(tmp_path), "x")
    for name, value in (("spread_networks", 1), ("spread", 2)): pd.DataFrame({"seed": [value]}).to_csv(tmp_path / f"das2020_x_{name}.csv", index=False)
    assert [t.seed.item() for t in earlier_trainings(str(tmp_path), "x")] == [1, 2]


@settings(deadline=None)
@given(st.lists(st.floats(-100, 100), min_size=2, max_size=6), st.floats(0.5, 0.99))
def test_prediction_interval_is_scipys(values, level):
    "For one more draw: Student's t around the mean, its scale widened by the uncertainty of the mean."
    k, mean, sd = len(values), np.mean(values), np.std(values, ddof=1)
    cell = intervals(pd.DataFrame({"method": "a", "seed": range(k), "x": values}), ["method"], level=level).iloc[0]
    if sd > 1e-6:
        low, high = scipy.stats.t.interval(level, k - 1, loc=mean, scale=sd * np.sqrt(1 + 1 / k))
        assert [cell.low, cell.high] == pytest.approx([low, high], rel=1e-9, abs=1e-9)


def test_prediction_interval_covers_as_often_as_it_says():
    draws = np.random.default_rng(0).normal(3, 2, size=(4000, 4))
    table = pd.DataFrame({"method": np.repeat(np.arange(4000), 3), "seed": np.tile(range(3), 4000), "x": draws[:, :3].ravel()})
    inside = beside_intervals(intervals(table, ["method"]), pd.DataFrame({"method": range(4000), "x": draws[:, 3]}), ["method"], half_unit=0).inside
    assert inside.mean() == pytest.approx(0.95, abs=0.015)


def test_order_of_the_methods():
    printed = pd.DataFrame({"method": ["a", "b", "c", "d"], "n_neurons": 5, "recon_distance": [1, 2, 3, np.nan]})
    table = lambda seed, values: pd.DataFrame({"method": ["c", "b", "a", "d"], "n_neurons": 5, "recon_distance": values, "seed": seed})
    found = rank_correlations(pd.concat([table(1, [3.0, 2, 1, 0]), table("full", [1.0, 2, 3, 9]), table(0, [2.0, 3, 1, np.nan]), table(1, 9.0).assign(n_neurons=1)]), printed, 5)
    assert found.to_dict() == pytest.approx({1: 1.0, "full": -1.0, 0: 0.5})


def test_around_one_full_training_the_interval_is_wider():
    trained = pd.DataFrame({"method": "a", "seed": range(3), "x": [1.0, 2.0, 3.0]})
    cell = intervals(trained, ["method"], pd.DataFrame({"method": ["a"], "x": [7.0]})).iloc[0]
    half = scipy.stats.t.ppf(0.975, 2) * np.sqrt(2)
    assert (cell.centre, cell.low, cell.high) == pytest.approx((7, 7 - half, 7 + half))


def test_one_training_has_no_interval():
    cell = intervals(pd.DataFrame({"method": ["a"], "seed": [0], "x": [1.0]}), ["method"]).iloc[0]
    assert cell["mean"] == 1 and np.isnan([cell.low, cell.high]).all()


# ---- open choices ----

def test_another_affinity_gives_other_clusters_and_leaves_the_decoder_alone(study):
    before = study.decoder.stats_.correlation.clone()
    other = with_correlation(study.decoder, torch.abs)
    assert torch.equal(other.stats_.correlation, before.abs()) and torch.equal(study.decoder.stats_.correlation, before)
    assert other.stats_._clusters is not study.decoder.stats_._clusters


def test_every_layer_can_be_changed(study):
    decoders = by_layer(study)
    assert list(decoders) == ["hidden2", "hidden1"] and decoders["hidden2"] is study.decoder and decoders["hidden1"].stats_.width == 32


# ---- what is committed ----

@committed
@pytest.mark.parametrize("dataset", MEASURED_SETS)
def test_a_committed_sweep_has_every_row(dataset):
    path = MEASURED / f"{sweep_table(dataset)}.csv"
    ours, printed = pd.read_csv(path), published(sweep_table(dataset))
    assert set(printed.columns) <= set(ours.columns) and {f"{c}_sd" for c in COLUMNS} <= set(ours.columns)
    assert set(zip(ours.n_neurons, ours.method)) == set(zip(printed.n_neurons, printed.method)) | {(0, "regular")}
    assert ours[COLUMNS].notna().all().all() and not ours.duplicated(["n_neurons", "method"]).any()
    about = json.loads(path.with_suffix(".json").read_text())
    assert about["scale"] == "paper" and about["dataset"] == dataset and about["samples"] == 15_000 and "-dirty" not in about["commit"]


@committed
@pytest.mark.parametrize("dataset", MEASURED_SETS)
def test_committed_numbers_follow_from_the_committed_networks(dataset):
    "Losses, accuracy, dead neurons, and D_r of one row at full size, from the files in data/checkpoints."
    study = Study(dataset, vae_file=f"data/checkpoints/{dataset}_vae.safetensors", classifier_file="data/checkpoints/{dataset}_classifier.safetensors", device="cpu")
    losses = pd.read_csv(MEASURED / "das2020_table3_vae_losses.csv").set_index("dataset").loc[dataset]
    test = evaluate(study.vae, study.data.test)
    nll = test["nll"] / study.vae.config["nll_weight"] * (1000 if dataset == "combined" else 1)
    assert [nll + test["kl"], nll, test["kl"]] == pytest.approx(losses[["total", "nll", "kl"]].tolist(), rel=1e-3)
    facts = pd.read_csv(MEASURED / "das2020_facts.csv").set_index(["dataset", "fact"]).value
    if dataset != "combined":
        assert 1 - evaluate(study.classifier, study.data.test)["error"] == pytest.approx(facts[dataset, "classifier_test_accuracy"], abs=2e-4)
    assert int((~study.decoder.stats_.alive).sum()) == pytest.approx(facts[dataset, "dead_neurons_layer3"], abs=1)
    images = study.sample("loact", 15_000)
    with torch.no_grad(): d = reconstruction_distance(images, study.vae.decode(study.vae.encode(images)))
    row = pd.read_csv(MEASURED / f"{sweep_table(dataset)}.csv").query("method == 'loact' and n_neurons == 5")
    assert d.double().mean().item() == pytest.approx(row.recon_distance.item(), rel=1e-3)


@committed
@pytest.mark.parametrize("dataset", MEASURED_SETS)
def test_pretrained_decodes(dataset):
    vae = pretrained(dataset)
    assert vae.decode(torch.zeros(2, vae.config["latent"])).shape == (2, 1, 28, 28) and vae.about["dataset"] == dataset
