"Judged images that are made up, for the tests of the chapters on judgement."
import numpy as np
import pandas as pd
from creative_nb.judgement import BASELINES

MAIN = ("creative", "novel_not_creative", "not_novel_or_creative", "inconclusive")
METHODS = ("low-active", *BASELINES)


def simulated(n: int = 240, seed: int = 0, datasets=("mnist", "fmnist")) -> pd.DataFrame:
    "n judged images whose metrics a and b depend on the label; ice_fmnist is for fmnist only."
    random = np.random.default_rng(seed)
    status = random.choice(["agreed", "tie", "too few"], n, p=[0.85, 0.1, 0.05])
    label = random.choice(MAIN, n, p=[0.3, 0.3, 0.3, 0.1])
    dataset = random.choice(datasets, n)
    values = random.standard_normal((n, 4)) + (label == "creative")[:, None] * [1.2, 0.5, 0, 0]
    frame = pd.DataFrame(values, columns=["a", "b", "ice_fmnist", "in_domain_score"]).assign(
        item=[f"i{i}" for i in range(n)], dataset=dataset, method=random.choice(METHODS, n),
        creativity_filter=random.integers(0, 2, n),
        consensus=np.where(status == "agreed", label, ""), status=status)
    return frame.assign(ice_fmnist=frame.ice_fmnist.where(frame.dataset == "fmnist"))
