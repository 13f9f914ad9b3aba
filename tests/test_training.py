"The training loop: resume after a real kill, restarts and smaller steps, errors, and the networks it trains."
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from types import SimpleNamespace

import pytest
import torch

from creative_nb import core, training
from creative_nb.classifiers import StridedClassifier
from creative_nb.convolutional import ConvVAE
from creative_nb.core import load_config, load_tensors, repo_root, save_tensors, source_of
from creative_nb.data import load_data
from creative_nb.diffusion import Diffusion
from creative_nb.models import MODELS, VAE, Classifier, load_model, network, network_class, pretrained
from creative_nb.training import Schedule, Trainer, drop_tiny, evaluate, fits, network_key, train_epoch, train_to_file

DIGITS = load_data("digits")
TINY = {"hidden": [16], "latent": 2}


def small(seed=0):
    torch.manual_seed(seed)
    return VAE(hidden=(32, 16), latent=4)


TRAIN = """
import sys
from creative_nb.data import load_data
from creative_nb.models import VAE
from creative_nb.training import Schedule, Trainer, train_to_file
import creative_nb.training as t
init = t.Trainer.__init__.__wrapped__
init.__defaults__ = (*init.__defaults__[:-1], 0.0)  # save after every epoch
schedule = Schedule(epochs=24, restart_after=2, decay_after=4)
train_to_file(sys.argv[1], VAE, {"hidden": [200, 100], "latent": 8}, load_data("digits"), schedule, seed=3)
"""


def epochs_in(state): return len(load_config(state)["history"]) if state.is_file() else 0


def test_killed_and_resumed_is_the_same_network(tmp_path):
    "SIGKILL in the middle, twice; then the same command again."
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CREATIVE_NB_PROGRESS": "0"}
    command = lambda name: [sys.executable, "-c", TRAIN, str(tmp_path / name)]
    subprocess.run(command("whole.safetensors"), env=environment, check=True)
    state, kills = tmp_path / "killed.safetensors.state", 0
    for at_least in (3, 9):
        process = subprocess.Popen(command("killed.safetensors"), env=environment)
        while process.poll() is None and epochs_in(state) < at_least: time.sleep(0.01)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.wait()
    assert kills == 2 and not (tmp_path / "killed.safetensors").exists()
    subprocess.run(command("killed.safetensors"), env=environment, check=True)
    whole, resumed = (load_tensors(tmp_path / f"{n}.safetensors") for n in ("whole", "killed"))
    assert whole[1]["history"] == resumed[1]["history"] and len(whole[1]["history"]) == 24
    assert all(torch.equal(whole[0][k], resumed[0][k]) for k in whole[0]) and not state.exists()


class Dies(torch.nn.Module):
    "A neuron whose weight has a gradient in the first step alone, beside one that lives."
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor([1e-3, 5.0]))

    def losses(self, images, labels=None):
        return {"loss": (self.weight.relu() * images.flatten(1)[:, :2].abs().add(1)).sum(1).mean()}


def test_moments_of_a_dead_neuron_do_not_become_denormal(monkeypatch):
    smallest, weights = {}, {}
    for name in ("kept", "dropped"):
        if name == "kept": monkeypatch.setattr(training, "drop_tiny", lambda optimizer: None)
        else: monkeypatch.undo()
        model = Dies()
        adam = torch.optim.Adam(model.parameters(), lr=2e-3, fused=True)
        train_epoch(model, DIGITS.train, adam, 1, seed=0, epoch=1)
        moment = adam.state[model.weight]["exp_avg"]
        smallest[name], weights[name] = moment[0].abs().item(), model.weight.detach().clone()
    assert 0 < smallest["kept"] < 1.2e-38 and smallest["dropped"] == 0 and weights["kept"].equal(weights["dropped"])


def test_only_tiny_moments_are_dropped():
    model = Dies()
    adam = torch.optim.Adam(model.parameters())
    model.losses(torch.rand(3, 1, 2, 2))["loss"].backward()
    adam.step()
    before = {k: v.clone() for k, v in adam.state[model.weight].items()}
    drop_tiny(adam)
    assert all(adam.state[model.weight][k].equal(v) for k, v in before.items())
    drop_tiny(torch.optim.SGD(model.parameters(), lr=0.1))  # nothing to drop


def test_restart_step_decay_and_early_stop(monkeypatch):
    "A validation score that never improves after epoch 2 makes the schedule visible."
    scores = iter([3.0, 2.0] + [5.0] * 50)
    monkeypatch.setattr(training, "evaluate", lambda *a: {"loss": next(scores), "nll": 0.0, "kl": 0.0})
    trainer = Trainer(small(), DIGITS, Schedule(epochs=50, restart_after=3, decay_after=4, decay=0.1, early_stop=9))
    weights = []
    while not trainer.done:
        trainer._epoch()
        weights.append(trainer.model.decoder.out.weight.detach().clone())
    assert len(trainer.history) == 11 and trainer.best_epoch == 2
    assert [round(h["lr"], 9) for h in trainer.history] == [1e-3] * 6 + [1e-4] * 4 + [1e-5]
    best = weights[1]
    assert [torch.equal(w, best) for w in weights] == [i in (1, 4, 7, 10) for i in range(11)]


def test_best_model_is_kept():
    trainer = Trainer(small(), DIGITS, Schedule(epochs=6)).fit()
    assert evaluate(trainer.model, DIGITS.valid)["loss"] == min(h["valid_loss"] for h in trainer.history)


def test_training_works_inside_no_grad(tmp_path):
    with torch.no_grad(): train_to_file(tmp_path / "a.safetensors", VAE, TINY, DIGITS, Schedule(epochs=1))
    assert load_model(tmp_path / "a.safetensors").about["seed"] == 0


def test_seed_decides(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train_to_file(tmp_path / f"{name}.safetensors", VAE, TINY, DIGITS, Schedule(epochs=2), seed)
    a, b, c = (load_tensors(tmp_path / f"{n}.safetensors")[0]["decoder.out.weight"] for n in "abc")
    assert torch.equal(a, b) and not torch.equal(a, c)


def test_not_finite_names_the_step():
    trainer = Trainer(small(), DIGITS, Schedule(epochs=2, lr=1e30))
    with pytest.raises(FloatingPointError, match=r"loss is nan at step \d+ of epoch 1"): trainer.fit()


def test_state_of_another_run_is_refused(tmp_path):
    trainer = Trainer(small(), DIGITS, Schedule(epochs=3), state=tmp_path / "s")
    trainer._epoch()
    trainer._save()
    with pytest.raises(ValueError, match="another run"):
        Trainer(small(), DIGITS, Schedule(epochs=3), seed=1, state=tmp_path / "s")


@pytest.mark.parametrize("bad", [dict(epochs=0), dict(lr=0.0), dict(lr=float("nan")), dict(decay=0), dict(batch_size=0),
                                 dict(early_stop=0)])
def test_bad_schedule(bad):
    with pytest.raises(ValueError, match=f"{next(iter(bad))}=.*expected"): Schedule(**bad)


def test_classifier_learns_digits(tmp_path):
    train_to_file(tmp_path / "c.safetensors", Classifier, {}, DIGITS, Schedule(epochs=5))
    assert load_model(tmp_path / "c.safetensors").about["test"]["error"] < 0.1


@pytest.mark.parametrize("make,message", [
    (lambda: VAE(latent=0), "latent=0"), (lambda: VAE(hidden=()), "hidden"),
    (lambda: VAE(init="xavier"), "init='xavier'"),
    (lambda: Classifier(classes=1), "classes=1"), (lambda: Classifier((1, 2, 2)), "4x4")])
def test_bad_network(make, message):
    with pytest.raises(ValueError, match=message): make()


def test_pretrained_lists_what_there_is():
    with pytest.raises(ValueError, match="dataset='cifar'.*there are"): pretrained("cifar")


# What decides a network

def key(model_class=VAE, config=TINY, data=DIGITS, schedule=Schedule(), seed=0):  # noqa: B008
    return network_key(model_class, config, data, schedule, seed)


@pytest.mark.parametrize("change", [
    {"config": TINY | {"latent": 3}}, {"config": TINY | {"nll_weight": 8}}, {"schedule": Schedule(epochs=9)},
    {"seed": 1}, {"data": load_data("digits", split_seed=1)}, {"model_class": Classifier, "config": {}}])
def test_every_setting_changes_the_key(change):
    assert key(**change) != key()


def test_the_same_settings_have_one_key():
    "Whatever is left to the defaults, and whoever loaded the data."
    explicit = {"hidden": (16,), "latent": 2, "nll_weight": 1, "image_shape": (1, 28, 28), "init": "truncated"}
    assert key(config=explicit) == key(data=replace(DIGITS, name="other", class_names=tuple("abcdefghij"))) == key()
    assert key(schedule=Schedule(decay=1)) == key(schedule=Schedule(decay=1.0))
    with pytest.raises(TypeError, match="config of VAE: .*'width'"): key(config={"width": 3})


@pytest.mark.parametrize("old,new,whose", [
    ("optimizer.step()", "optimizer.step(); optimizer.step()", "both"), ("m.abs() <", "m <", "both"),
    ("split.order()", "torch.arange(len(split))", "both"), ("v.half()", "v", "both"),
    ("int.from_bytes(", "1 + int.from_bytes(", "both"), ("decay: PartOf = 0.5", "decay: PartOf = 0.4", "both"),
    ("init: Init", "init: str", "nobody"),
    ("lr=schedule.lr", "lr=schedule.lr / 2", "both"), ("nn.init.zeros_(m.bias)", "nn.init.ones_(m.bias)", "both"),
    ("nll + kl", "nll + 2 * kl", "VAE"), ("self.encoder(x)[0]", "self.encoder(x)[1]", "VAE"),
    ("zip(widths, widths[1:])", "zip(widths, widths[:1])", "VAE"), ("(64, 2, 2)", "(32, 2, 2)", "Classifier"),
    ("self.out(self.features(x))", "self.features(x)", "Classifier"),
    ('"Logits, (B, classes)."', '"Logits."', "nobody"),
    ("Train until done", "Go on until done", "nobody"), ("dynamic_ncols=True", "dynamic_ncols=False", "nobody"),
    ("metadata=about", "metadata=about | {'by': 'us'}", "nobody"), ("pixels / 16", "pixels / 17", "nobody")])
def test_a_line_changes_the_keys_of_those_who_use_it(monkeypatch, old, new, whose):
    chapters = ("common", "core", "data", "models", "training")
    texts = [(repo_root() / f"creative_nb/{m}.py").read_text() for m in chapters]
    assert sum(text.count(old) for text in texts) >= 1
    before = {"VAE": key(), "Classifier": key(Classifier, {})}
    monkeypatch.setattr(core, "source_of", lambda o: source_of(o).replace(old, new))
    changed = [name for name, k in {"VAE": key(), "Classifier": key(Classifier, {})}.items() if k != before[name]]
    assert changed == {"both": ["VAE", "Classifier"], "nobody": []}.get(whose, [whose])


def test_constants_count(monkeypatch):
    before = key()
    monkeypatch.setattr(training, "MOMENT_FLOOR", 1e-20)
    assert key() != before


ADDED = {
    "data.py": """
@dataset("another")
def _another(root, split_seed, download): raise FileNotFoundError("nothing yet")
""", "models.py": """
def useful(x): return x

@network
class Another(VAE):
    monitor = "kl"
    def encode(self, x): return useful(x)
""", "training.py": """
class LongSchedule(Schedule): "Of another kind."
""", "core.py": """
def another(): "Of no use to networks."
"""}
KEYS = """
from types import SimpleNamespace
import creative_nb
from creative_nb.models import VAE, Classifier
from creative_nb.training import Schedule, network_key
data = SimpleNamespace(content_hash="abc")
print(creative_nb.__file__, *(network_key(m, {}, data, Schedule(), 0) for m in (VAE, Classifier)))
"""


def test_additions_and_docstrings_change_no_key(tmp_path):
    "In a copy of the package: one more data set, network, helper and schedule; other docstrings; no comments."
    package = tmp_path / "creative_nb"
    package.mkdir()
    for name in ("__init__.py", "checks.py", "images.py", *ADDED):
        text = (repo_root() / "creative_nb" / name).read_text()
        text = re.sub(r"  # .*", "", text).replace('"Train ', '"Please train ') + ADDED.get(name, "")
        (package / name).write_text(text)
    out = subprocess.run([sys.executable, "-c", KEYS], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(tmp_path)},
                         capture_output=True, text=True, check=True)
    where, *keys = out.stdout.split()
    data = SimpleNamespace(content_hash="abc")
    assert where == str(package / "__init__.py") and keys == [key(m, {}, data) for m in (VAE, Classifier)]


# Committed networks

FILES = sorted((repo_root() / "data/checkpoints").glob("*.safetensors"))
# GANs and tables of embeddings have records of another kind: test_adversarial, test_biggan, test_li2020
CHECKPOINTS = [p for p in FILES if "gan" not in p.stem and "embeddings" not in p.stem]
ASKED = {  # what das2020's settings ask for, besides defaults
    "celeba_vae": (ConvVAE, {"filters": [8, 16, 16], "hidden": [500, 250], "nll_weight": 1e6},
                   Schedule(34, 32, 3e-4, restart_after=3, decay_after=6, early_stop=10, flips=True, amp=True,
                            channels_last=True), 0),
    "digits_diffusion": (Diffusion, {"widths": [16, 32], "patch_size": 2}, Schedule(100, 32), 0),
    "mnist_vae": (VAE, {"latent": 50}, Schedule(decay=1), 0),
    "fmnist_vae": (VAE, {"latent": 50}, Schedule(decay=1.0), 2),
    "combined_vae": (VAE, {"latent": 100, "nll_weight": 8}, Schedule(), 0),
    "mnist_classifier": (Classifier, {"classes": 10}, Schedule(8), 0),
    "fmnist_classifier": (Classifier, {}, Schedule(30, restart_after=2, decay_after=4), 0),
    "fmnist_optimised": (StridedClassifier, {}, Schedule(6, restart_after=1, decay_after=1), 1)}


def asked_for(path):
    model_class, config, schedule, seed = ASKED[path.stem]
    return model_class, config, SimpleNamespace(content_hash=load_config(path)["data_hash"]), schedule, seed


@pytest.mark.parametrize("path", CHECKPOINTS, ids=lambda p: p.stem)
def test_committed_networks_serve(path):
    model_class, config, data, schedule, seed = asked_for(path)
    assert fits(path, model_class, config, data, schedule, seed)
    assert not fits(path, VAE if model_class is Classifier else Classifier, {}, data, schedule, seed)
    other = {"widths": [8]} if model_class in (Diffusion, StridedClassifier) else {"init": "torch"}
    assert not fits(path, model_class, config | other, data, schedule, seed)
    assert not fits(path, model_class, config, SimpleNamespace(content_hash="other"), schedule, seed)
    assert not fits(path, model_class, config, data, replace(schedule, batch_size=64), seed)
    assert not fits(path, model_class, config, data, schedule, seed + 1)


@pytest.mark.parametrize("name", ["mnist", "fmnist"])
def test_committed_networks_are_of_the_data_as_loaded(name):
    if not (repo_root() / "data/raw" / {"mnist": "MNIST", "fmnist": "FashionMNIST"}[name] / "raw").is_dir():
        pytest.skip(f"real {name} is not in data/raw")
    about = load_config(repo_root() / f"data/checkpoints/{name}_vae.safetensors")
    assert load_data(name, download=False).content_hash == about["data_hash"]


def test_records_of_earlier_versions(tmp_path):
    "What they lack has the default; what is no argument any more, or no record at all, does not fit."
    record = {"kind": "VAE", "model": TINY, "schedule": {"epochs": 9}, "seed": 0, "data_hash": DIGITS.content_hash}
    asked = (VAE, TINY, DIGITS, Schedule(epochs=9), 0)
    changes = {"same": {}, "gone": {"model": TINY | {"width": 3}}, "other": {"model": TINY | {"init": "torch"}},
               "later": {"schedule": {"epochs": 9, "momentum": 0.1}}}
    for name, change in changes.items(): save_tensors(tmp_path / name, {}, record | change)
    for missing in record:
        save_tensors(tmp_path / f"no {missing}", {}, {k: v for k, v in record.items() if k != missing})
    assert len(list(tmp_path.iterdir())) == 9 and not fits(tmp_path / "none", *asked)
    assert [p.name for p in tmp_path.iterdir() if fits(p, *asked)] == ["same"]


def test_a_trained_network_fits_what_it_was_trained_by(tmp_path):
    path, schedule = tmp_path / "v.safetensors", Schedule(epochs=1, early_stop=3)
    train_to_file(path, VAE, TINY | {"nll_weight": 2}, DIGITS, schedule, 5)
    assert fits(path, VAE, TINY | {"nll_weight": 2.0}, DIGITS, schedule, 5)
    assert load_config(path)["schedule"] == asdict(schedule)


# Networks by name

def test_a_registered_network_can_be_trained_saved_and_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr("creative_nb.models.MODELS", dict(MODELS))

    @network
    class Linear(torch.nn.Module):
        monitor = "loss"

        def __init__(self, width=784):
            super().__init__()
            self.config = {"width": width}
            self.out = torch.nn.Linear(width, 1)

        def losses(self, images, labels): return {"loss": (self.out(images.flatten(1))[:, 0] - labels).square().mean()}

    train_to_file(tmp_path / "l.safetensors", Linear, {}, DIGITS, Schedule(epochs=1))
    assert isinstance(load_model(tmp_path / "l.safetensors"), Linear) and network_class("Linear") is Linear
    assert key(Linear, {}) != key(Linear, {"width": 3})
    mine = type("VAE", (Linear,), {"__qualname__": "My.VAE"})
    with pytest.raises(ValueError, match="another network is called VAE"): network(mine)


def test_unknown_network(tmp_path):
    with pytest.raises(ValueError, match="model='GAN': expected one of VAE, Classifier"): network_class("GAN")
    save_tensors(tmp_path / "x.safetensors", {}, {"kind": "GAN", "model": {}})
    with pytest.raises(ValueError, match="x.safetensors holds 'GAN' made with {}: .*expected one of"):
        load_model(tmp_path / "x.safetensors")
