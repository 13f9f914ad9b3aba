"das2019: percent of what, rows of Table 1, clusters of their own, crossings, and claims that follow their tables."
import numpy as np
import pandas as pd
import pytest
import torch

from creative_nb.claims import FAILS, HOLDS, NO_DATA, PART, Evidence, InPrint, assess
from creative_nb.das2019 import claims
from creative_nb.das2019.fid_entropy import crossing
from creative_nb.das2019.noise import READINGS
from creative_nb.das2019.novelty import decoded_as, method_at, rows_of
from creative_nb.das2019.tsne import own_share, tsne
from creative_nb.decode import CreativeDecoder
from creative_nb.experiment import Run
from creative_nb.methods import Noisy, RandomOff, Regular
from creative_nb.published import printed_table

CURVES = ("rand-corr", "clust", "3clust", "noisy", "default-tn")


@pytest.fixture(scope="module")
def run(): return Run("das2019", "digits", "smoke")


@pytest.fixture(scope="module")
def decoder():
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(8, 200), torch.nn.ReLU(), torch.nn.Linear(200, 16))
    return CreativeDecoder(network, "1").fit(torch.randn(1500, 8))


def on(decoder, z): return (decoder.generator[1](decoder.generator[0](z)) > decoder.threshold).sum(1)


# -- percent of what

def test_a_method_at_a_strength_keeps_what_its_percentage_is_of(run):
    assert method_at(run, "rand-corr", 15) == RandomOff(1, fraction=0.15, of="active")
    assert method_at(run, "noisy", 35) == Noisy(1, fraction=0.35, clip=True)
    assert method_at(run, "3clust", 0) == method_at(run, "interpolation-2", 15) == Regular()
    for wrong in (-1, 101, float("nan")):
        with pytest.raises(ValueError, match="percent=.*percentage from 0 to 100"): method_at(run, "rand-corr", wrong)


def test_rand_corr_changes_a_share_of_the_neurons_that_are_on(run, decoder):
    z = torch.randn(50, 8)
    decoder.decode(z, method_at(run, "rand-corr", 15))
    assert torch.equal(decoder.changed_, (0.15 * on(decoder, z).double()).long())


def test_noise_is_clipped_and_of_all_living_neurons(run, decoder):
    z, alive = torch.randn(50, 8), int(decoder.stats_.alive.sum())
    decoder.decode(z, method_at(run, "noisy", 35))
    assert decoder.changed_.eq(int(0.35 * alive)).all()


@pytest.mark.parametrize("name", READINGS)
def test_a_reading_of_noise_repeats_itself_and_is_no_plain_decoding(decoder, name):
    z, reading = torch.randn(20, 8), type(READINGS[name])(**{**READINGS[name].__dict__, "fraction": 0.35})
    first = decoder.decode(z, reading, seed=3)
    assert torch.equal(first, decoder.decode(z, reading, seed=3))
    assert not torch.equal(first, decoder.decode(z, Regular()))


# -- Table 1

def test_the_rows_are_those_in_print_and_two_readings(run):
    rows, printed = rows_of(run), printed_table("das2019", "table1_novelty").query("dataset == 'mnist'")
    assert rows[:13] == list(zip(printed.method, printed.perturbation))
    assert rows[13:] == [("regular", ""), ("algorithm-1", "15%"), ("algorithm-1", "35%")]
    assert decoded_as("interpolation", "2 points") == ("interpolation-2", 0)
    assert decoded_as("clust", "35%") == ("clust", 35)
    assert {m for m, _ in rows} - {"test", "interpolation"} <= {*run.methods, "regular"}


# -- clusters of their own

def test_own_share_is_that_of_chance_for_a_random_set_and_one_for_a_cloud_apart():
    rows, random = np.random.default_rng(0).normal(size=(400, 4)), np.random.default_rng(1).random(400) < 0.2
    share, chance = own_share(rows, random)
    assert abs(share - chance) < 0.04
    assert own_share(rows + 100 * random[:, None], random)[0] == 1
    with pytest.raises(ValueError, match="k=400"): own_share(rows, random, 400)


def test_duplicates_are_not_their_own_neighbours():
    rows = np.concatenate([np.zeros((2, 2)), np.ones((11, 2)), 5 + np.arange(20).reshape(10, 2)])
    share, _ = own_share(rows, np.arange(23) < 2, 1)
    assert share == 1


def test_a_map_is_the_same_twice():
    rows = np.random.default_rng(0).normal(size=(80, 60)).astype(np.float32)
    assert np.array_equal(tsne(rows, 0), tsne(rows, 0)) and tsne(rows, 0).shape == (80, 2)


# -- where curves cross

def curves(**values):
    return pd.DataFrame([{"method": m.replace("_", "-"), "percent": 5.0 * (i + 1), "fid": v, "ice": v}
                         for m, vs in values.items() for i, v in enumerate(vs)])


@pytest.mark.parametrize("a,b,expected", [([1, 2, 3], [2, 2, 2], 10), ([1, 3, 3], [2, 2, 2], 7.5),
                                          ([3, 3, 3], [2, 2, 2], None)])
def test_crossing(a, b, expected):
    table = curves(rand_corr=a, **{"3clust": b})
    assert crossing(table, "fid") == expected or (expected is None and np.isnan(crossing(table, "fid")))
    assert np.isnan(crossing(table[table.method == "rand-corr"], "fid"))


# -- claims follow their tables

@pytest.fixture
def shelf(tmp_path):
    def fill(setting, name, table):
        (tmp_path / setting).mkdir(exist_ok=True)
        table.to_csv(tmp_path / setting / f"{name}.csv", index=False)
        return lambda claim: assess(claims.CLAIMS[claim], Evidence("das2019", [setting], folder=tmp_path))[1]
    return fill


@pytest.mark.parametrize("values,low,high", [
    ({"rand_corr": [1, 1, 1, 9], "3clust": [5, 5, 5, 2]}, HOLDS, HOLDS),
    ({"rand_corr": [1, 6, 1, 1], "3clust": [5, 5, 5, 2]}, PART, FAILS),
    ({"rand_corr": [9, 9, 9, 9], "3clust": [5, 5, 5, 2]}, FAILS, HOLDS),
])
def test_who_leads_in_fid(shelf, values, low, high):
    verdict = shelf("mnist", "fid_entropy", curves(**values))
    assert (verdict("fid_low"), verdict("fid_high")) == (low, high)


def test_where_entropy_peaks(shelf):
    falls = {m.replace("-", "_"): [1, 3, 2] for m in CURVES if m not in ("rand-corr", "default-tn")}
    assert shelf("mnist", "fid_entropy", curves(**falls, rand_corr=[1, 2, 3]))("entropy_peaks") == HOLDS
    assert shelf("mnist", "fid_entropy", curves(**falls, rand_corr=[1, 3, 2]))("entropy_peaks") == PART
    assert shelf("fmnist", "fid_entropy", curves(**falls, rand_corr=[1, 2, 3]))("entropy_peaks") == PART


@pytest.mark.parametrize("share,expected", [(0.6, HOLDS), (0.4, FAILS)])
def test_a_cluster_of_their_own(shelf, share, expected):
    rows = [{"set": "3clust", "space": "pixels", "where": w, "share": share} for w in ("map", "space")]
    assert shelf("fmnist", "neighbours", pd.DataFrame(rows))("own_cluster") == expected


def test_faces_are_not_tested_without_their_table_and_hold_in_print(shelf):
    verdict = shelf("mnist", "neighbours", pd.DataFrame({"set": [], "space": [], "where": [], "share": []}))
    assert verdict("faces") == verdict("own_cluster") == NO_DATA
    assert assess(claims.CLAIMS["faces"], InPrint("das2019"))[1] == HOLDS


def test_print_asked_of_itself():
    table = printed_table("das2019", "table1_novelty")
    for name in ("fmnist_leaders", "decoded", "three_clusters", "interpolated"):
        assert assess(claims.CLAIMS[name], InPrint("das2019"))[1] == (PART if name == "interpolated" else HOLDS)
    assert claims.cell(InPrint("das2019"), "mnist", "input_1ns", "test") == table.input_1ns[0]
