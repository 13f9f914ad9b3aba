"""One latent at a time, as an interactive notebook decodes: our low-active decoding against plain decoding, a forward
hook written by hand, and the same edit of the same five neurons by pyvene and nnsight, where they are installed.

    pip install pyvene nnsight; python tests/benchmarks/bench_one_latent.py

Prints the smallest and the median milliseconds of CPU time, all taken in turn in one run on one thread. Ours chooses
the neurons, too; the others are told which.
"""
import argparse, statistics, time
from importlib.util import find_spec

import torch

from creative_nb.core import standard_normal
from creative_nb.decode import CreativeDecoder, LowActive
from creative_nb.models import pretrained

NEURONS, VALUE, LAYER = torch.tensor([3, 50, 200, 400, 800]), 2.0, "hidden3"


def by_hand(network, z):
    def edit(module, args, output):
        output = output.clone()
        output[:, NEURONS] = VALUE
        return output
    def decode():
        handle = network.get_submodule(LAYER).register_forward_hook(edit)
        try: return network(z)
        finally: handle.remove()
    return decode


def by_pyvene(network, z):
    import pyvene
    from transformers import PretrainedConfig

    class Edit(pyvene.ConstantSourceIntervention):
        def forward(self, base, source=None, subspaces=None, **kwargs):
            base = base.clone()
            base[..., NEURONS] = VALUE
            return base

    class Wrapped(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.network, self.config = network, PretrainedConfig(hidden_size=1000)
        def forward(self, x=None, **kwargs): return self.network(x)

    edit = {"component": f"network.{LAYER}.output", "intervention": Edit(embed_dim=1000, keep_last_dim=True)}
    model = pyvene.IntervenableModel([edit], model=Wrapped())
    return lambda: model({"x": z})[1]


def by_nnsight(network, z):
    from nnsight import NNsight
    model = NNsight(network)
    def decode():
        with model.trace(z):
            model.get(LAYER).output[:, NEURONS] = VALUE
            images = model.output.save()
        return images
    return decode


def main(repetitions: int):
    torch.set_num_threads(1)
    network, z = pretrained("mnist").decoder, standard_normal(1, (50,), seed=1)
    decoder, method = CreativeDecoder(network, LAYER).fit(standard_normal(2000, (50,), seed=0)), LowActive()
    ways = {"plain": lambda: network(z), "hook by hand": by_hand(network, z),
            "creative_nb": lambda: decoder.decode(z, method)}
    peers = {"pyvene": by_pyvene, "nnsight": by_nnsight}
    ways |= {name: make(network, z) for name, make in peers.items() if find_spec(name)}
    taken = {name: [] for name in ways}
    with torch.no_grad():
        expected = ways["hook by hand"]()
        for name in ways.keys() & peers: assert torch.allclose(ways[name](), expected, atol=1e-5), name
        for repetition in range(repetitions + 30):
            for name, way in ways.items():
                start = time.process_time_ns()
                way()
                if repetition >= 30: taken[name].append((time.process_time_ns() - start) / 1e6)
    for name, ms in taken.items():
        print(f"{name:14} {min(ms):6.3f} at least, {statistics.median(ms):6.3f} ms in the median")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=300)
    main(**vars(parser.parse_args()))
