"""Ready for a GPU: what takes a device works on another than the CPU's and finds the same; loops do not wait for it.

There is no GPU here, so the device is one that pretends: see `elsewhere.py`."""
import ast, copy
from contextlib import nullcontext
from pathlib import Path

import pytest, torch
from elsewhere import Device, Elsewhere, back
from torch import nn
from torch.utils._pytree import tree_flatten

from creative_nb.amplify import Amplified
from creative_nb.biggan import ResidualDiscriminator, SmallBigGAN
from creative_nb.classifiers import DenseClassifier, StridedClassifier
from creative_nb.conditional import conditional
from creative_nb.convolutional import ConvVAE
from creative_nb.data import load_data
from creative_nb.decode import CreativeDecoder
from creative_nb.distributions import classifier_entropy, fid, inception_score
from creative_nb.divergence import Bending, blended, rewritten
from creative_nb.diversity import pairwise, precision_recall, pure_diversity, solow_polasky, vendi_score, weitzman
from creative_nb.embeddings import RECIPES, ActivationMaximization, log_probability
from creative_nb.gan import ConditionalGenerator, ProjectionDiscriminator
from creative_nb.generators import Classes, Embeddings, Encoded, Generator, Interpolation, Noise, Prior
from creative_nb.judges import SetScores, judge_of
from creative_nb.methods import (Cluster, Correlation, LowActive, Noisy, NonSpecific, RandomOff, Regular, TurnOff)
from creative_nb.models import VAE, Classifier, load_model, save_model
from creative_nb.novelty import METRICS, InDomainScore, Novelty
from creative_nb.pairs import in_domain, ms_ssim, pair_means
from creative_nb.training import Schedule, Trainer, evaluate
from creative_nb.weights import diversity_weights, imbalanced, inverse_density, inverse_frequency

LIBRARY = sorted(p for p in Path(__file__).resolve().parents[1].glob("creative_nb/*.py") if not p.name.startswith("_"))


def put_nowhere(x): return x


def put_elsewhere(x): return x.to("meta")


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def both(scene):
    """What a scene finds on the CPU, and on another device: the same. A scene gets a function that moves tensors and
    networks, and returns tensors, numbers, or dictionaries of them."""
    torch.manual_seed(0)
    ours = scene(put_nowhere)
    with Device():
        torch.manual_seed(0)
        theirs = scene(put_elsewhere)
    a, b = (tree_flatten(back(x))[0] for x in (ours, theirs))
    assert len(a) == len(b) > 0
    for x, y in zip(a, b):
        if isinstance(x, torch.Tensor): assert torch.equal(x, y.cpu()) or torch.allclose(x, y, equal_nan=True)
        else: assert y == pytest.approx(x, rel=1e-9, nan_ok=True)
    return theirs


X, Z, LABELS = random(60, 1, 28, 28), random(60, 6, seed=1) * 4 - 2, torch.arange(60) % 10


def vae(): return VAE(hidden=(40, 30), latent=6).eval()


def classifier(): return Classifier().eval()


NETWORKS = {
    "VAE": lambda: VAE(hidden=(40, 30), latent=6),
    "ConvVAE": lambda: ConvVAE((1, 28, 28), filters=(4, 4, 4), hidden=(20,), latent=6),
    "Classifier": Classifier, "StridedClassifier": lambda: StridedClassifier(widths=(4, 8, 8)),
    "DenseClassifier": lambda: DenseClassifier(widths=(20, 10)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_networks(name):
    def scene(put):
        net = put(NETWORKS[name]())
        found = net.losses(put(X), put(LABELS))
        found["loss"].mean().backward()
        return {"losses": {k: v.detach() for k, v in found.items()}, "slopes": [p.grad for p in net.parameters()]}
    both(scene)


GANS = {
    "gan": (lambda: ConditionalGenerator((1, 32, 32), 10, 4, 6), lambda: ProjectionDiscriminator((1, 32, 32), 10, 4)),
    "biggan": (lambda: SmallBigGAN((1, 28, 28), 10, (8, 8, 8), 6, 6),
               lambda: ResidualDiscriminator((1, 28, 28), 10, (4, 4, 4))),
}


@pytest.mark.parametrize("name", GANS)
def test_generators_of_classes_and_their_judges(name):
    def scene(put):
        made = put(GANS[name][0]()).eval()(put(Z), put(LABELS))
        return made.detach(), put(GANS[name][1]()).eval()(made, put(LABELS)).detach()
    both(scene)


def test_training(tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "autocast", lambda *a, **k: nullcontext())  # which `meta` does not have
    adam = torch.optim.Adam  # and no fused step
    monkeypatch.setattr("creative_nb.training.evaluate", torch.no_grad()(evaluate.__wrapped__.__wrapped__))
    monkeypatch.setattr(torch.optim, "Adam", lambda parameters, lr, fused: adam(parameters, lr=lr))
    data = load_data("digits")
    def scene(put):
        torch.manual_seed(0)
        here = data if put is put_nowhere else data.to("meta")
        trainer = Trainer(put(VAE((1, 28, 28), (20,), 4)), here, Schedule(epochs=1), seed=0).fit()
        save_model(trainer.model, tmp_path / "net.safetensors")
        again = load_model(tmp_path / "net.safetensors", "cpu" if put is put_nowhere else "meta")
        return [p.detach() for p in trainer.model.parameters()], [p.detach() for p in again.parameters()]
    both(scene)


METHODS = [Regular(), LowActive(n=3), NonSpecific(n=1, max_activation=100.0, top_entropy=100.0), Correlation(n=3),
           Cluster(n=3), RandomOff(n=3), Noisy(n=3), TurnOff(n=3), Bending()]


@pytest.mark.filterwarnings("ignore:fitted to")
@pytest.mark.parametrize("method", METHODS, ids=lambda m: type(m).__name__)
def test_decoding(method):
    z, labels = random(300, 6, seed=3) * 6 - 3, torch.arange(300) % 10
    def scene(put):
        decoder = CreativeDecoder(put(vae().decoder), "hidden1").fit(put(z), put(labels))
        found = [decoder.sample(20, method, seed=1), decoder.decode(put(z[:20]), method), decoder.changed_]
        with decoder.applied(method) as generator, torch.no_grad(): found.append(generator(put(z[:5])))
        return found
    both(scene)


@pytest.mark.filterwarnings("ignore:fitted to")
@pytest.mark.parametrize("sampler", [Prior(), Prior(truncation=1.0), Interpolation(2), Encoded(Z)],
                         ids=["prior", "truncated", "interpolation", "encoded"])
def test_samplers(sampler):
    def scene(put):
        decoder = CreativeDecoder(put(vae().decoder), "hidden1").fit(put(Z), put(LABELS))
        return decoder.sample(20, LowActive(n=3), latents=sampler)
    both(scene)


@pytest.mark.filterwarnings("ignore:fitted to")
def test_generators_with_more_inputs():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.hidden, self.out = nn.Embedding(10, 6), nn.Linear(6, 40), nn.Linear(40, 64)
        def forward(self, z, y, c, e):
            return self.out(self.hidden(z + self.table(y) + c + e).relu()).tanh().view(-1, 1, 8, 8)
    def scene(put):
        inputs = {"y": Classes(10), "c": Embeddings(Z), "e": Noise((6,))}
        generator = Generator(put(Net().eval()), inputs=inputs, value_range=(-1, 1))
        decoder = CreativeDecoder(generator, "hidden").fit(put(Z))
        return generator.to_unit(decoder.sample(10, LowActive(n=3)))
    both(scene)


@pytest.mark.filterwarnings("ignore")
def test_novelty_metrics():
    real = random(200, 1, 28, 28, seed=5)
    def scene(put):
        v, c = put(vae()), put(classifier())
        novelty = Novelty(v.encode, v.decode, c).fit(put(real))
        found = novelty.score(put(X))
        assert set(found) == {m.name for m in METRICS.values() if m.name in found} and len(found) > 8
        return found
    both(scene)


def test_in_domain_score():
    both(lambda put: InDomainScore().fit(put(Z)).score(put(Z[:9] * 2)))


@pytest.mark.filterwarnings("ignore")
def test_sets_of_images():
    a, b = random(60, 20, seed=7), random(60, 20, seed=8)
    def scene(put):
        x, y, logits = put(a), put(b), put(b[:, :10])
        return {"fid": fid(x, y), "is": inception_score(logits), "ice": classifier_entropy(logits),
                "precision": precision_recall(x, y), "vendi": vendi_score(x), "far": pairwise(x, "l2"),
                "pure": pure_diversity(pairwise(x)), "solow": solow_polasky(pairwise(x)),
                "weitzman": weitzman(pairwise(x[:12]).cpu())}
    both(scene)


@pytest.mark.filterwarnings("ignore")
def test_pairs_and_judges():
    def scene(put):
        net = put(classifier())
        judge = judge_of(net, "a judge")
        table = SetScores(judge).fit(put(X), put(LABELS)).score(put(X[None, :20]), [3])
        return {"ms_ssim": ms_ssim(put(X), put(X.flip(0))), "pairs": pair_means(put(X), in_domain(net, "net"), 10),
                "judge": table.drop(columns="class").to_numpy(float).ravel().tolist()}
    both(scene)


def test_weights_of_images():
    def scene(put):
        x, labels = put(random(60, 20, seed=7)), put(LABELS)
        return [inverse_frequency(labels), inverse_density(x), diversity_weights(x, steps=3),
                imbalanced(labels, [3] * 10)]
    both(scene)


def test_divergence_and_amplification():
    def scene(put):
        a, b = put(vae().decoder), put(vae().decoder)
        net = put(ConditionalGenerator((1, 32, 32), 10, 4, 6)).eval()
        loud = Amplified(Generator(net, inputs={"labels": Classes(10)}), ["layer1"])
        with torch.no_grad():
            return [blended(a, b)(put(Z)), rewritten(a, ["hidden1"])(put(Z)), loud(put(Z), labels=put(LABELS))]
    both(scene)


@pytest.mark.parametrize("recipe", ["AM-S", "AM-D-S"])
def test_embeddings(recipe):
    from dataclasses import replace
    small = replace(RECIPES[recipe], steps=3, latents=4, redraw=2, pairs=3)
    torch.manual_seed(0)
    made, seen = SmallBigGAN((1, 8, 8), 4, (8, 8), 10, 6), StridedClassifier((1, 8, 8), 4, (8, 8)).eval()
    def scene(put):
        generator, judge = conditional(put(copy.deepcopy(made))), put(copy.deepcopy(seen).requires_grad_(False))
        search = ActivationMaximization(small, trials=2).fit(generator, log_probability(judge), [0, 3])
        return search.embeddings_, generator.sample(put(generator.latents(4, 0)), search.embeddings_[0, 0])
    both(scene)


def test_the_device_that_pretends_refuses_what_a_gpu_refuses():
    with Device():
        there, here = torch.arange(4.).to("meta"), torch.arange(4.)
        assert isinstance(there, Elsewhere) and there.sum().item() == 6 and torch.equal(there.cpu(), here)
        for wrong in (lambda: there + here, lambda: here[there.long()], lambda: torch.cat([here, there])):
            with pytest.raises(RuntimeError, match="one device"): wrong()
        with pytest.raises((TypeError, RuntimeError)): there.numpy()
        assert torch.equal(there[torch.tensor([1, 2])].cpu(), here[1:3]), "indices on the CPU are fine"


# Waiting for the device

WAITS = {"cpu", "item", "tolist", "numpy"}
LOOPS = (ast.For, ast.While, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
FEW = "a few numbers at the end"
FILES = "files and digests are made on the CPU"
WAITING = {  # module, function: why it waits inside of a loop, and how often
    ("adversarial", "sliced_wasserstein"): (1, "once a size, three at most"),
    ("axes", "novelty"): (1, "once a metric"),
    ("axes", "_predicted_creativity"): (1, "tensors that are on the CPU"),
    ("conditional", "__call__"): (1, "two numbers, to check the first images"),
    ("conditional", "limits"): (1, "two numbers"),
    ("core", "_apart"): (1, FILES),
    ("core", "_checksum"): (1, FILES),
    ("data", "content_hash"): (2, FILES),
    ("decode", "weights_hash"): (2, FILES),
    ("embeddings", "weights_digest"): (2, FILES),
    ("embeddings", "_keep_finished"): (1, FILES),
    ("layers", "shares"): (1, FEW),
    ("novelty", "score"): (1, "once a metric"),
    ("pairs", "pair_means"): (2, FEW),
    ("pool", "digest"): (1, FILES),
    ("training", "train_epoch"): (1, "once an epoch, for each loss"),
    ("training", "evaluate"): (1, "once an epoch, for each loss"),
}


def waits(node, name: str = "", looped: bool = False) -> list[str]:
    "The functions around calls inside of loops that wait for a device; what a loop runs over is worked out once."
    found = []
    if isinstance(node, ast.FunctionDef): name, looped = node.name, False
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in WAITS and looped:
        found.append(name)
    inside = looped or isinstance(node, LOOPS)
    if isinstance(node, ast.For): once = [node.iter]
    else: once = [g.iter for g in getattr(node, "generators", [])[:1]]
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.comprehension):
            for part in ast.iter_child_nodes(child): found += waits(part, name, looped if part in once else inside)
        else: found += waits(child, name, looped if child in once else inside)
    return found


def test_loops_do_not_wait_for_the_device():
    found = [(p.stem, name) for p in LIBRARY for name in waits(ast.parse(p.read_text(encoding="utf-8")))]
    counts = {where: found.count(where) for where in sorted(set(found))}
    assert counts == {where: n for where, (n, why) in sorted(WAITING.items())}


def test_what_counts_as_waiting_in_a_loop():
    count = lambda code: len(waits(ast.parse(code)))
    assert count("for x in y.tolist(): print(x)") == 0 and count("for x in y: x.item()") == 1
    assert count("[x.item() for x in y]") == 1 and count("[x for x in y.tolist()]") == 0
    assert count("while x.item(): pass") == 1 and count("y.cpu()") == 0
