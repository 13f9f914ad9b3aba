"""Throughput of creative decoding as a ratio to plain decoding, both in one run on the same machine.

    python tests/benchmarks/bench_decode.py

Prints one row a method: the best of several alternating repetitions of each, so that other load hits both alike.
"""
import argparse
import time

import torch

from creative_nb.core import pick_device, standard_normal
from creative_nb.decode import (Cluster, Correlation, CreativeDecoder, LowActive, NonSpecific, Noisy, RandomOff,
                                Regular, TooFewNeurons, TurnOff)
from creative_nb.models import VAE, pretrained

METHODS = {"low-active": LowActive(), "non-specific": NonSpecific(n=1), "correlation": Correlation(),
           "cluster": Cluster(), "3 clusters": Cluster(clusters=3), "random off": RandomOff(), "noisy": Noisy(),
           "turn off": TurnOff()}


def seconds(decoder, z, method) -> float:
    if z.is_cuda: torch.cuda.synchronize()
    start = time.perf_counter()
    decoder.decode(z, method)
    if z.is_cuda: torch.cuda.synchronize()
    return time.perf_counter() - start


def main(samples: int, repetitions: int, device: str):
    device = pick_device(device)
    try: vae = pretrained("mnist", device=device)
    except ValueError: vae = VAE().to(device).eval()
    z = standard_normal(samples, (50,), seed=0).to(device)
    decoder = CreativeDecoder(vae.decoder, "hidden3").fit(z, torch.arange(samples) % 10)
    print(f"{samples:,} latents on {device}, {torch.get_num_threads()} threads; creative / plain throughput")
    for name, method in METHODS.items():
        try: times = [(seconds(decoder, z, Regular()), seconds(decoder, z, method)) for _ in range(repetitions)]
        except TooFewNeurons as e:
            print(f"{name:14} {e}")
            continue
        plain, creative = (min(t) for t in zip(*times))
        print(
            f"{name:14} {plain / creative:5.2f}   plain {1e6 * plain / samples:6.1f} us, creative "
            f"{1e6 * creative / samples:6.1f} us a sample"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--device", default="auto")
    main(**vars(parser.parse_args()))
