"""Activation maximisation against a plain loop over the same batches, and all trials of a class against one after
another, as ratios in one run on the same machine.

    python tests/benchmarks/bench_embeddings.py
"""
import argparse
import time
from dataclasses import replace

import torch

from creative_nb.classifiers import StridedClassifier
from creative_nb.biggan import SmallBigGAN
from creative_nb.conditional import conditional
from creative_nb.embeddings import ActivationMaximization, RECIPES, log_probability


def plain(generator, classifier, recipe, trials):
    "The loop that one would write by hand, over batches of the same size."
    c = generator.embeddings[:1].repeat(trials, 1).clone().requires_grad_()
    adam = torch.optim.Adam([c], recipe.lr * generator.scale)
    for step in range(recipe.steps):
        if step % recipe.redraw == 0: z = torch.randn(trials * recipe.latents, *generator.latent_shape)
        logits = classifier(generator(z, c.repeat_interleave(recipe.latents, 0)))
        loss = -logits.log_softmax(1)[:, 0].view(trials, -1).mean(1).sum()
        adam.zero_grad(set_to_none=True)
        loss.backward()
        adam.step()
        with torch.no_grad(): c.clamp_(*generator.limits)


def seconds(f) -> float:
    start = time.perf_counter()
    f()
    return time.perf_counter() - start


def main(steps: int, trials: int, repetitions: int):
    torch.manual_seed(0)
    generator = conditional(SmallBigGAN())
    classifier = StridedClassifier().eval().requires_grad_(False)
    objective, recipe = log_probability(classifier), replace(RECIPES["AM-S"], steps=steps)
    search = lambda n, seed=0: ActivationMaximization(recipe, n, seed).fit(generator, objective, [0])
    runs = {"plain loop, all trials": lambda: plain(generator, classifier, recipe, trials),
            "all trials": lambda: search(trials),
            "one trial after another": lambda: [search(1, seed) for seed in range(trials)]}
    times = {name: min(seconds(f) for _ in range(repetitions)) for name, f in runs.items()}
    for name, t in times.items(): print(f"{name:26} {t:.2f} s")
    print(f"throughput relative to the plain loop: {times['plain loop, all trials'] / times['all trials']:.2f}")
    faster = times["one trial after another"] / times["all trials"]
    print(f"all trials at once against one after another: {faster:.2f} times as fast")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--trials", type=int, default=5)
    parser.add_argument("--repetitions", type=int, default=3)
    main(**vars(parser.parse_args()))
