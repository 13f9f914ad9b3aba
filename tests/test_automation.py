"The search for settings on a network that is not in the package, and the file it leaves."
import json

import numpy as np
import pytest
import torch
from torch import nn

from creative_nb.automation import (Automation, Choice, chosen, decisions, KNOBS, load_choice, on_front, WAYS,
                                    Yardstick)
from creative_nb.core import standard_normal
from creative_nb.data import load_data
from creative_nb.generators import Generator
from creative_nb.methods import Regular


@pytest.fixture(scope="module")
def automation():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 64), nn.ReLU(), nn.Linear(64, 784), nn.Sigmoid(), nn.Unflatten(1, (1, 28, 28)))
    pictures = load_data("digits").train.images
    return Automation(Generator(net), standard_normal(1000, (6,), 1), Yardstick(pictures, 40), {"layer": "1"}, seed=3)


def test_a_search_repeats_itself_and_keeps_what_is_given(automation):
    table, again = automation.search(5), automation.search(5)
    assert table.equals(again) and table.way[0] == "regular" and set(table.layer[1:]) == {"1"}
    assert np.array_equal(table.front, on_front(table[["fidelity", "diversity", "novelty"]].to_numpy()))


def test_the_choice_keeps_fidelity_and_comes_back_from_its_file(automation, tmp_path):
    table = automation.search(5)
    choice = chosen(table, "novelty", 0.0)
    assert table.novelty.max() == table[table.way == choice.way].novelty.max()
    choice.save(tmp_path / "c.json", by="test")
    assert load_choice(tmp_path / "c.json") == choice
    decoder = choice.decoder(automation.generator).fit(automation.fit_to)
    assert decoder.sample(3, choice.method, latents=choice.latents).shape == (3, 1, 28, 28)
    faithful = table.assign(fidelity=[2.0, 1.0, *[0.5] * (len(table) - 2)])
    assert chosen(faithful, "novelty", 0.5).fraction in set(faithful.fraction[:2])
    with pytest.raises(ValueError, match="none of .* settings keeps so much"): chosen(faithful, "novelty", 1.5)


def test_who_decided_is_told(automation):
    told = decisions(automation, Choice("1"), "novelty", 0.5).set_index("decision")["taken by"]
    assert told["layer"] == "person" and told["fraction"] == "system" and set(KNOBS) <= set(told.index)


def test_every_way_makes_a_method():
    for name, make in WAYS.items(): assert isinstance(make(0.1, 1.0), Regular) == (name == "regular")


@pytest.mark.parametrize("text", ["no json", "[]", json.dumps({"kind": "Plan"})])
def test_other_files_are_no_choice(tmp_path, text):
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(ValueError, match="expected a file of Choice.save"): load_choice(tmp_path / "c.json")


def test_what_cannot_be_searched_is_told_at_once(automation):
    with pytest.raises(ValueError, match="given: unknown colour, expected some of fraction"):
        Automation(automation.generator, automation.fit_to, automation.yardstick, {"colour": 1})
    with pytest.raises(ValueError, match="expected samples=200 or more"): Yardstick(torch.rand(20, 1, 4, 4))
