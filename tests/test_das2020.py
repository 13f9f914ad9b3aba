"The experiments of das2020: what they share, what they conclude, and that the committed tables follow from the committed networks."
import json

import pandas as pd
import pytest
import torch

from creative_nb.core import repo_root
from creative_nb.das2020.metric_sweep import COLUMNS, kept_row, measure
from creative_nb.das2020.report import claims, claims_table
from creative_nb.das2020.study import METHODS, Study, method_of, sweep_table
from creative_nb.decode import TooFewNeurons
from creative_nb.models import load_model, pretrained
from creative_nb.novelty import reconstruction_distance
from creative_nb.published import published
from creative_nb.training import evaluate

ROOT = repo_root()
MEASURED = ROOT / "data/measured"
TABLE5 = MEASURED / f"{sweep_table('mnist')}.csv"
committed = pytest.mark.skipif(not TABLE5.is_file() or not (ROOT / "data/raw/MNIST/raw").is_dir(), reason="real MNIST is not in data/raw")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    return Study("digits", hidden=(64, 32), latent=8, epochs=3, classifier_epochs=1, artifacts=folder / "artifacts", out=folder / "out")


def test_every_method_of_the_tables_has_a_name():
    assert set(METHODS) | {"2interp", "6interp", "test"} == set(published(sweep_table("mnist")).method)
    with pytest.raises(ValueError, match="name='low-active'.*loact"): method_of("low-active")


def test_settings_make_other_artifacts(study):
    same = Study("digits", hidden=(64, 32), latent=8, epochs=3, classifier_epochs=1, artifacts=study.artifacts, out=study.out)
    assert same.vae_path == study.vae_path and same.key == study.key
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


def test_a_row_is_measured_once_and_is_the_plain_mean(study, monkeypatch):
    row = kept_row(study, "loact", 2, 64)
    images = study.decoder.sample(64, method_of("loact", 2), seed=0)
    with torch.no_grad(): direct = reconstruction_distance(images, study.vae.decode(study.vae.encode(images)))
    assert row["recon_distance"] == pytest.approx(direct.double().mean().item(), rel=1e-5) and row["neurons_changed"] <= 2
    assert row["recon_distance_sd"] == pytest.approx(direct.double().std().item(), rel=1e-4)
    monkeypatch.setattr("creative_nb.das2020.metric_sweep.measure", None)
    assert kept_row(study, "loact", 2, 64) == row


def test_claims_on_the_printed_tables():
    "The sentences that the paper's own numbers support, counted by hand from Table 5."
    holds = {sentence: ok for _, sentence, _, ok in claims(published(sweep_table("mnist")))}
    assert len(holds) >= 10
    assert all(ok for s, ok in holds.items() if s.startswith(("low-active has a higher", "noisy decoding stays", "interpolation is the opposite", "three clusters", "non-specific stands out")))


def test_claims_notice_a_reversed_table():
    table = published(sweep_table("mnist")).copy()
    swapped = table.assign(method=table.method.replace({"loact": "noise", "noise": "loact"}))
    first = next(iter(claims(swapped)))
    assert "low-active" in first[1] and not first[3]
    assert len(claims_table(swapped, table)) == len(list(claims(swapped)))


# ---- what is committed ----

@committed
def test_committed_table_5_has_every_row():
    ours, printed = pd.read_csv(TABLE5), published(sweep_table("mnist"))
    assert list(ours.columns) == list(printed.columns)
    assert set(zip(ours.n_neurons, ours.method)) == set(zip(printed.n_neurons, printed.method)) and ours[COLUMNS].notna().all().all()
    about = json.loads(TABLE5.with_suffix(".json").read_text())
    assert about["scale"] == "paper" and about["dataset"] == "mnist" and about["samples"] == 15_000 and "-dirty" not in about["commit"]


@committed
def test_committed_numbers_follow_from_the_committed_networks():
    "Losses, accuracy, and D_r of one row at full size, from the files in data/checkpoints."
    study = Study("mnist", vae_file="data/checkpoints/mnist_vae.safetensors", classifier_file="data/checkpoints/mnist_classifier.safetensors", device="cpu")
    losses = pd.read_csv(MEASURED / "das2020_table3_vae_losses.csv").set_index("dataset").loc["mnist"]
    test = evaluate(study.vae, study.data.test)
    assert [test["loss"], test["nll"], test["kl"]] == pytest.approx(losses[["total", "nll", "kl"]].tolist(), rel=1e-3)
    facts = pd.read_csv(MEASURED / "das2020_facts.csv").set_index("fact").value
    assert 1 - evaluate(study.classifier, study.data.test)["error"] == pytest.approx(facts["classifier_test_accuracy"], abs=2e-4)
    images = study.sample("loact", 15_000)
    with torch.no_grad(): d = reconstruction_distance(images, study.vae.decode(study.vae.encode(images)))
    row = pd.read_csv(TABLE5).query("method == 'loact' and n_neurons == 5")
    assert d.double().mean().item() == pytest.approx(row.recon_distance.item(), rel=1e-3)


@committed
def test_pretrained_decodes():
    vae = pretrained("mnist")
    assert vae.decode(torch.zeros(2, 50)).shape == (2, 1, 28, 28) and vae.about["dataset"] == "mnist"
