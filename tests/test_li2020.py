"""The experiments of li2020 on a generator, a classifier and a judge that are not in the repository."""
import json

import numpy as np
import pandas as pd
import pytest
import torch

from creative_nb.biggan_files import random_state
from creative_nb.experiment import Run
from creative_nb.li2020.activation import SHOWN, all_embeddings, differences, judged, judged_real, table_3_1
from creative_nb.li2020.embedding_map import after_search, kind_rows, nearest_other, of_kind
from creative_nb.li2020.generator import chosen, scorer
from creative_nb.li2020.report import measured_changes, printed_changes
from creative_nb.li2020.survey import survey

OWN = '''
import torch
from torch import nn
from creative_nb.conditional import ClassConditional
from creative_nb.judges import Judge
from creative_nb.pairs import Perceptual

def generator(width=8):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(14, width), nn.ReLU(), nn.Linear(width, 784), nn.Sigmoid()).requires_grad_(False)
    model = lambda z, c: net(torch.cat([z, c], 1)).view(-1, 1, 28, 28)
    return ClassConditional(model, torch.eye(10), (4,), name="mine")

def classifier():
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))

def judge():
    torch.manual_seed(2)
    features, head = nn.Sequential(nn.Flatten(), nn.Linear(784, 6)).eval(), nn.Linear(6, 10)
    return Judge("a stranger", features, head, Perceptual("pixels", lambda a, b: (a - b).flatten(1).norm(dim=1)))

def nothing(): return None
'''


@pytest.fixture()
def own(tmp_path):
    path = tmp_path / "own_networks.py"
    path.write_text(OWN)
    of = lambda name, **arguments: {"function": f"{path}:{name}", "arguments": arguments}
    return {"gan": of("generator", width=12), "optimised": of("classifier"), "classifier": of("judge")}


def test_the_main_table_on_networks_of_your_own(own, tmp_path):
    run = Run("li2020", "digits", "smoke", own, out=str(tmp_path / "out"))
    assert run.networks.gan.name == "mine" and run.networks.judge.name == "a stranger"
    scores, classes = scorer(run, 10), [0, 1, 2]
    found = all_embeddings(run, classes, trials=2, steps=3)
    assert {name: tuple(c.shape) for name, c in found.items()} == {
        "GAN": (3, 1, 10)} | dict.fromkeys(("Noise-S", "Noise-L", "AM-S", "AM-L", "AM-D-S", "AM-D-L"), (3, 2, 10))
    table = pd.concat([judged_real(run, scores, classes, 12), judged(run, scores, found, classes, 12)])
    assert len(table) == (1 + 1 + 6 * 2) * 4 and table[table["class"] == "all"].accuracy.between(0, 1).all()
    summary = table_3_1(table)
    assert list(summary.method.unique()) == ["real", *found] and set(SHOWN) <= set(summary)
    assert np.isclose(summary[(summary.method == "GAN")].moved, 0).all()
    changes = differences(table, draws=50)
    assert (changes.low <= changes.difference + 1e-9).all() and (changes.difference <= changes.high + 1e-9).all()
    run.save_table(summary, "table3_1")
    assert json.loads(run.table_path("table3_1").with_suffix(".json").read_text())["gan"].endswith(":generator")
    run.keep_checkpoints()  # there are none: what comes from a function is not ours to keep


def test_pools_for_people_are_blinded_by_secrets(own, tmp_path):
    run = Run("li2020", "digits", "smoke", own, out=str(tmp_path / "out"))
    c, classes = run.networks.gan.embeddings[:8] + 0.1, list(range(8))
    names = lambda people: tuple(survey(run, c, classes, "realism", "AM-S", people)[0].items)
    assert names(False) == names(False) and names(True) != names(True)


def test_biggan_by_one_parameter(tmp_path):
    torch.save(random_state(), tmp_path / "G_ema.pth")
    about = {"function": "creative_nb.biggan_files:load_biggan", "arguments": {"path": str(tmp_path / "G_ema.pth")}}
    networks = Run("li2020", "digits", "smoke", {"gan": about}, out=str(tmp_path / "out")).networks
    assert networks.gan.name == "BigGAN, 64 pixels" and networks.gan.embeddings.shape == (5, 6)


def test_functions_that_do_not_fit_are_told(own, tmp_path):
    with pytest.raises(ValueError, match="function='mine': expected file.py:name"):
        Run("li2020", "digits", "smoke", {"gan": {"function": "mine"}}, out=str(tmp_path))
    with pytest.raises(ValueError, match="function='mine': expected file.py:name"):
        Run("li2020", "digits", "smoke", {"optimised": {"function": "mine"}}, out=str(tmp_path))
    wrong = {"gan": {"function": own["gan"]["function"].replace(":generator", ":nothing")}}
    with pytest.raises(TypeError, match="returns a NoneType: expected a ClassConditional"):
        _ = Run("li2020", "digits", "smoke", wrong, out=str(tmp_path)).networks.gan


def test_classes_are_chosen_by_the_two_rules():
    table = pd.DataFrame({"class": [0, 1, 2, 3, 4, "all"], "accuracy": [0.9, 0.95, 0.85, 0.3, 0.7, 0.74],
                          "ratio": [0.9, 0.7, 0.8, 0.2, 0.1, 0.6]})
    assert chosen(table, narrow=2).tolist() == ["other", "narrow", "narrow", "broken", "other", ""]
    assert chosen(table.assign(accuracy=0.6)).tolist().count("broken") == 1


def test_neighbours_and_kinds():
    assert of_kind("dogs")[151:269].all() and of_kind("birds")[[7, 24, 80, 146]].all() and not of_kind("birds")[25]
    table = np.random.default_rng(0).standard_normal((1000, 4))
    table[151:269] += 50
    rows = kind_rows(table, "made").set_index("kind")
    assert rows.share["dogs"] == 1 and abs(rows.chance["dogs"] - 117 / 999) < 1e-12
    assert (nearest_other(table)[151:269] >= 151).all()
    stayed = after_search(table, np.array([3, 200]), table[[3, 200]] + 1e-3)
    assert stayed["nearest is own class"] == 1 and stayed["nearest other class is the same as before"] == 1


def test_signs_of_print():
    changes = printed_changes("li2020")
    assert list(changes.index) == ["Noise-S", "Noise-L", "AM-S", "AM-L", "AM-D-S", "AM-D-L"]
    assert np.isclose(changes.fid["Noise-L"], 84.61 - 24.34) and (changes.loc["AM-S":, "perceptual"] > 0).all()
    names = ("inception_score", "fid", "accuracy", "ms_ssim", "perceptual")
    measured = pd.DataFrame({"method": ["real", "GAN", "AM-S"], "variant": "average",
                             **{c: [1.0, 2.0, 3.0] for c in names}})
    assert (measured_changes(measured) == 1).all(axis=None)
