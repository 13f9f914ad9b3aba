"The training loop: resume after a real kill, restarts and smaller steps, errors, and the networks it trains."
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from creative_nb.core import load_tensors
from creative_nb.data import load_data
from creative_nb.models import VAE, Classifier, load_model, pretrained
from creative_nb.training import Schedule, Trainer, drop_tiny, evaluate, train_epoch, train_to_file

DIGITS = load_data("digits")


def small(seed=0):
    torch.manual_seed(seed)
    return VAE(hidden=(32, 16), latent=4)


TRAIN = """
import sys
from creative_nb.data import load_data
from creative_nb.models import VAE
from creative_nb.training import Schedule, Trainer, train_to_file
import creative_nb.training as t
t.Trainer.__init__.__defaults__ = (*t.Trainer.__init__.__defaults__[:-1], 0.0)  # save after every epoch
train_to_file(sys.argv[1], VAE, {"hidden": [200, 100], "latent": 8}, load_data("digits"), Schedule(epochs=24, restart_after=2, decay_after=4), seed=3)
"""


def test_killed_and_resumed_is_the_same_network(tmp_path):
    "SIGKILL in the middle, twice; then the same command again."
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CREATIVE_NB_PROGRESS": "0"}
    command = lambda name: [sys.executable, "-c", TRAIN, str(tmp_path / name)]
    subprocess.run(command("whole.safetensors"), env=environment, check=True)
    state, kills = tmp_path / "killed.safetensors.state", 0
    for at_least in (3, 9):
        process = subprocess.Popen(command("killed.safetensors"), env=environment)
        while process.poll() is None and not (state.is_file() and len(load_tensors(state)[1]["history"]) >= at_least): time.sleep(0.01)
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

    def losses(self, images, labels=None): return {"loss": (self.weight.relu() * images.flatten(1)[:, :2].abs().add(1)).sum(1).mean()}


def test_moments_of_a_dead_neuron_do_not_become_denormal(monkeypatch):
    import creative_nb.training as training
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
    import creative_nb.training as training
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
    with torch.no_grad(): train_to_file(tmp_path / "a.safetensors", VAE, {"hidden": [16], "latent": 2}, DIGITS, Schedule(epochs=1))
    assert load_model(tmp_path / "a.safetensors").about["seed"] == 0


def test_seed_decides(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train_to_file(tmp_path / f"{name}.safetensors", VAE, {"hidden": [16], "latent": 2}, DIGITS, Schedule(epochs=2), seed)
    a, b, c = (load_tensors(tmp_path / f"{n}.safetensors")[0]["decoder.out.weight"] for n in "abc")
    assert torch.equal(a, b) and not torch.equal(a, c)


def test_not_finite_names_the_step():
    bad = DIGITS.train.images.clone()
    bad[5] = torch.nan
    data = DIGITS.__class__(**{**{f: getattr(DIGITS, f) for f in ("name", "valid", "test", "class_names", "groups")}, "train": DIGITS.train.__class__(bad, DIGITS.train.labels)})
    with pytest.raises(FloatingPointError, match=r"loss is nan at step \d+ of epoch 1"): Trainer(small(), data, Schedule(epochs=2)).fit()


def test_state_of_another_run_is_refused(tmp_path):
    trainer = Trainer(small(), DIGITS, Schedule(epochs=3), state=tmp_path / "s")
    trainer._epoch()
    trainer._save()
    with pytest.raises(ValueError, match="another run"): Trainer(small(), DIGITS, Schedule(epochs=3), seed=1, state=tmp_path / "s")


@pytest.mark.parametrize("bad", [dict(epochs=0), dict(lr=0.0), dict(lr=float("nan")), dict(decay=0), dict(batch_size=0), dict(early_stop=0)])
def test_bad_schedule(bad):
    with pytest.raises(ValueError, match=f"{next(iter(bad))}=.*expected"): Schedule(**bad)


def test_classifier_learns_digits(tmp_path):
    train_to_file(tmp_path / "c.safetensors", Classifier, {}, DIGITS, Schedule(epochs=5))
    assert load_model(tmp_path / "c.safetensors").about["test"]["error"] < 0.1


@pytest.mark.parametrize("make,message", [(lambda: VAE(latent=0), "latent=0"), (lambda: VAE(hidden=()), "hidden"), (lambda: VAE(init="he"), "init='he'"),
                                          (lambda: Classifier(classes=1), "classes=1"), (lambda: Classifier((1, 2, 2)), "4x4")])
def test_bad_network(make, message):
    with pytest.raises(ValueError, match=message): make()


def test_pretrained_lists_what_there_is():
    with pytest.raises(ValueError, match="dataset='cifar'.*there are"): pretrained("cifar")
