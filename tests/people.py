"Pools and labels that the tests of the human study share."
from dataclasses import replace

import numpy as np, pandas as pd, torch
from hypothesis import strategies as st

from creative_nb.labels import check_labels
from creative_nb.pool import Pool, blind
from creative_nb.question import QUESTIONS
from creative_nb.reader import PoolFile
from creative_nb.store import Store

MAIN = ("creative", "novel_not_creative", "not_novel_or_creative", "inconclusive")


def make_pool(n: int = 12, seed: int = 0, questionnaire: str = "main") -> tuple[Pool, pd.DataFrame]:
    images = torch.from_numpy(np.random.default_rng(0).random((n, 1, 6, 5), dtype=np.float32))
    methods = [("low-active", "noisy", "regular")[i % 3] for i in range(n)]
    manifest = pd.DataFrame({"dataset": "digits", "method": methods, "creativity_filter": 0,
                             "seed": 7, "index": range(n), "n_neurons": 5, "input_1nn": 0.5, "ice_mnist": 1.25})
    return blind(images, manifest, images[:2], "digits", questionnaire, seed)


def table(**votes: str) -> pd.DataFrame:
    "Labels of items from strings of digits: each annotator's label, counted from 1; `.` is missing."
    rows = [(f"rater {r}", item, MAIN[int(d) - 1]) for item, digits in votes.items()
            for r, d in enumerate(digits) if d != "."]
    return pd.DataFrame(rows, columns=["annotator", "item", "label"])


POOL, KEY = make_pool()

NAMES = st.text(st.characters(exclude_categories=("C",)), min_size=1, max_size=20).filter(
    lambda s: s.strip() and len(s.casefold()) <= 20)


@st.composite
def label_tables(draw, items=POOL.items[:6]):
    people = draw(st.lists(NAMES.map(lambda s: s + "x"), min_size=1, max_size=3,
                           unique_by=lambda s: "".join(s.split()).casefold()))
    showings = st.tuples(st.sampled_from(people), st.sampled_from(items), st.integers(0, 1))
    keys = draw(st.lists(showings, min_size=1, max_size=12, unique=True))
    rows = [(*k, draw(st.sampled_from(MAIN)), draw(st.none() | st.floats(0, 1e6))) for k in keys]
    try: return check_labels(pd.DataFrame(rows, columns=["annotator", "item", "repeat", "label", "seconds"]))
    except ValueError: return check_labels(table(a="1"))


def made_up(folder, n=8, repeats=2, seed=0):
    "A pool of small squares, its manifest and a new store, in `folder`."
    images = torch.rand(n, 1, 6, 6, generator=torch.Generator().manual_seed(seed))
    methods = ["low-active", "non-specific"] * (n // 2)
    manifest = pd.DataFrame({"method": methods, "creativity_filter": [0, 1] * (n // 2)})
    pool, manifest = blind(images, manifest, images[:3], name="squares", seed=seed)
    pool.save(folder / "pool.safetensors")
    store = Store(folder / "labels.sqlite", pool, repeats=repeats, seed=seed)
    return PoolFile(folder / "pool.safetensors"), manifest, store


def asked(folder, question=None, n=8, repeats=0, answers=(), feedback=(), consent="") -> tuple[PoolFile, Store]:
    "A pool and a store of another question, or of items with known answers; first panels are dark, second ones light."
    question = question or replace(QUESTIONS["main"], name="agreed", consent=consent) if consent else question or "main"
    panels = getattr(question, "panels", 1)
    images = torch.rand(n, 2, 1, 6, 6) * 0.4 + torch.tensor([0.0, 0.6]).view(1, 2, 1, 1, 1)
    full = lambda values: [*values, *[""] * (n - len(values))]
    rows = pd.DataFrame({"method": "am", "answer": full(answers), "feedback": full(feedback)})
    pool, _ = blind(images if panels == 2 else images[:, 0], rows, images[:3, 0], "squares", question, 0)
    pool.save(folder / "pool.safetensors")
    return PoolFile(folder / "pool.safetensors"), Store(folder / "labels.sqlite", pool, repeats=repeats)
