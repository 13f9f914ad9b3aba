"The tables of the atlas and of berns2022's notebooks: their arithmetic, against SciPy and by hand."
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from creative_nb.atlas.correlations import correlations, oriented, trade_offs
from creative_nb.atlas.sets import contradictions, kept_embeddings, SETS
from creative_nb.berns2022.evenness import class_sizes, evened, evenness, gap_closed
from creative_nb.berns2022.expansion import compared, set_measures
from creative_nb.berns2022.expressivity import against_interpolation
from creative_nb.experiment import Run
from creative_nb.paper import load_paper
from creative_nb.shapes import random_genomes, shapes


def table(n=12, seed=0):
    random = np.random.default_rng(seed)
    rows = [{"dataset": "d", "set": f"s{i}", "family": "f", "seed": s, "fid": 10.0 - i + 0.01 * s,
             "precision": i / n + 0.001 * s, "recall": random.random(), "coverage": -i + 0.0 * s,
             "recon_distance": random.random()}
            for i in range(n) for s in (0, 1)]
    return pd.DataFrame(rows)


def test_correlations_are_spearmans_with_higher_as_more():
    t = table()
    found = correlations(t, draws=200).set_index(["measure", "against"])
    wide = oriented(t)
    assert (wide.fid > -11).all() and wide.fid.is_monotonic_increasing  # a low distance is more faithful
    for (a, b), row in found.iterrows():
        assert row.correlation == pytest.approx(stats.spearmanr(wide[a], wide[b]).statistic)
        assert row.low <= row.correlation + 1e-9 and row.correlation - 1e-9 <= row.high
    assert found.loc[("fid", "precision"), "correlation"] == pytest.approx(1)
    assert found.loc[("fid", "coverage"), "high"] < 0
    assert trade_offs(found.reset_index().assign(dataset="d")).loc["d", "trade-off"] >= 1


def test_measures_that_order_sets_the_other_way_round_are_told():
    against = contradictions(table()).set_index(["measure", "against"])
    assert against.loc[("fid", "precision"), "opposite"] == 0
    only = table()[["dataset", "set", "family", "seed", "recall", "coverage"]].assign(recall=lambda d: -d.coverage)
    assert contradictions(only).opposite.item() == 1


def test_the_settings_of_the_atlas_are_those_of_the_papers():
    atlas, das, li = (load_paper(p).setting("fmnist", "paper") for p in ("atlas", "das2020", "li2020"))
    assert atlas["vae"] == das["vae"] and atlas["gan"] == li["gan"] and atlas["optimised"] == li["optimised"]
    run = Run("atlas", "fmnist", "paper")
    assert run.networks.path("vae").parent.name == "checkpoints" and "AM-S" in kept_embeddings(run)
    families = {"anchors", "latents", "das2020", "das2019", "bending", "berns2022", "li2020"}
    assert {s.family for s in SETS.values()} == families


# ---- berns2022 ----

def test_sizes_of_cases_and_their_even_counterpart():
    labels = torch.arange(1000) % 10
    for case in ("long tail", "two classes"):
        sizes = class_sizes(case, 10, 80, 4, seed=1)
        even = evened(sizes, labels)
        assert [n > 0 for n in even] == [n > 0 for n in sizes] and len({n for n in even if n}) == 1
        assert sum(even) <= sum(sizes)
    with pytest.raises(ValueError, match="case='odd'"): class_sizes("odd", 10, 80, 4, 0)


def test_evenness_counts_sure_samples_alone():
    p = torch.eye(10)[torch.tensor([0, 0, 0, 1])].double()
    unsure = torch.full((4, 10), 0.1).double()
    found = evenness(torch.cat([p, unsure]), [0, 1], [1])
    assert found["rare_share_sure"] == 0.25 and found["share_sure"] == 0.5
    assert found["evenness_sure"] == pytest.approx(stats.entropy([0.75, 0.25]) / np.log(2))
    assert np.isnan(evenness(unsure, [0, 1], [1])["evenness_sure"])


def test_the_gap_is_closed_by_half_at_half_way():
    rows = [{"case": "c", "seed": 0, "training": t, "m": v} for t, v in
            (("imbalanced", 1.0), ("balanced data", 3.0), ("half", 2.0), ("worse", 0.0))]
    closed = gap_closed(pd.DataFrame(rows), "m").set_index("training").closed
    assert closed.to_dict() == {"half": 0.5, "worse": -0.5}


def test_searches_are_compared_by_welch_ranks_and_holm():
    random = np.random.default_rng(0)
    rows = [{"latent": n, "regime": "random", "set": s, "m": random.normal(mean)} for n in (8, 32)
            for s, mean in (("parameter search", 3), ("latent search", 0)) for _ in range(6)]
    found = compared(pd.DataFrame(rows), "m").set_index("latent")
    for n, part in pd.DataFrame(rows).groupby("latent"):
        a, b = (part[part["set"] == s].m for s in ("parameter search", "latent search"))
        assert found.p_t[n] == stats.ttest_ind(a, b, equal_var=False).pvalue and found.ratio[n] == b.mean() / a.mean()
    p = sorted(found.p_t)
    assert sorted(found.p_t_adjusted) == pytest.approx([min(1, 2 * p[0]), max(min(1, 2 * p[0]), p[1])])


def test_models_are_compared_in_pairs():
    rows = [{"latent": 8, "base": b, "left_out": name, "error_unseen": e + 0.01 * b} for b in range(5)
            for name, e in (("interpolation", 0.1), ("extrapolation", 0.3))]
    row = against_interpolation(pd.DataFrame(rows)).iloc[0]
    assert row.left_out == "extrapolation" and row.higher == row.pairs == 5 and row.p == pytest.approx(0.0625)


def test_measures_of_shapes_grow_with_their_variety():
    masks = shapes(random_genomes(40))
    few = np.concatenate([masks[:5]] * 8)
    a, b = set_measures(masks, masks), set_measures(few, masks)
    for name in ("pure_diversity", "spanning_length", "solow_polasky", "vendi_rbf", "mean_distance", "recall"):
        assert a[name] > b[name], name
    assert b["solow_polasky"] <= 5 + 1e-6
