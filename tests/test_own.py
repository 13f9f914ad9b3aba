"A generator that is not of this bundle: how its file is read, what it takes, and what the trials say of it."
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from creative_nb.own import (COLUMNS, at_ends, diversity, find_class, fitting, grid, latent_shape_of,
                             load_network, own_generator, range_of, state_dict_of, suggested, Trials)

GAN = '''
import torch
from torch import nn

class Generator(nn.Module):
    "A DCGAN as in many tutorials: latents are maps of one pixel."
    def __init__(self, nz=16, ngf=8, nc=3):
        super().__init__()
        self.main = nn.Sequential(
            nn.ConvTranspose2d(nz, ngf * 4, 4, 1, 0, bias=False), nn.BatchNorm2d(ngf * 4), nn.ReLU(True),
            nn.ConvTranspose2d(ngf * 4, ngf * 2, 4, 2, 1, bias=False), nn.BatchNorm2d(ngf * 2), nn.ReLU(True),
            nn.ConvTranspose2d(ngf * 2, ngf, 4, 2, 1, bias=False), nn.BatchNorm2d(ngf), nn.ReLU(True), nn.Dropout(0.2),
            nn.ConvTranspose2d(ngf, nc, 3, 1, 1, bias=False), nn.Tanh())

    def forward(self, z): return self.main(z)

class Conditional(nn.Module):
    def __init__(self, nz=12, classes=3):
        super().__init__()
        self.embed, self.fc = nn.Embedding(classes, nz), nn.Linear(nz, 64)
        self.body = nn.Sequential(nn.LeakyReLU(0.2), nn.Linear(64, 192), nn.Sigmoid())

    def forward(self, noise, label): return self.body(self.fc(noise + self.embed(label))).view(-1, 3, 8, 8)

class Unbounded(nn.Module):
    def __init__(self): super().__init__(); self.fc = nn.Linear(4, 192)
    def forward(self, z): return 50 * self.fc(z).view(-1, 3, 8, 8)

def scaled(width): return Generator(ngf=width)
def number(): return 7
'''


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("theirs") / "their_gan.py"
    path.write_text(GAN)
    return path


@pytest.fixture(scope="module")
def network(file):
    torch.manual_seed(0)
    made = load_network(f"{file}:Generator")
    for m in made.modules():  # statistics of a trained network: not zero and one
        if isinstance(m, nn.BatchNorm2d): nn.init.normal_(m.running_mean, -0.2, 0.2)
    return made


def same(a, b): return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values()))


@pytest.mark.parametrize("wrap", [
    lambda s: s, lambda s: {"epoch": 3, "netG": s}, lambda s: {"state_dict": {f"module.{k}": v for k, v in s.items()}},
    lambda s: {"model": {"state_dict": s}, "optimizer": {"lr": 0.1}},
    lambda s: {"G": {f"generator.{k}": v for k, v in s.items()} | {"discriminator.main.0.weight": torch.zeros(3)}}],
    ids=["plain", "netG", "parallel", "nested", "pair"])
def test_state_dicts_as_training_scripts_leave_them(file, network, tmp_path, wrap):
    torch.save(wrap(network.state_dict()), tmp_path / "weights.pth")
    loaded = load_network(f"{file}:Generator", tmp_path / "weights.pth")
    assert same(loaded, network) and not loaded.training


def test_safetensors(file, network, tmp_path):
    from safetensors.torch import save_file
    save_file(network.state_dict(), tmp_path / "weights.safetensors")
    assert same(load_network(f"{file}:Generator", tmp_path / "weights.safetensors"), network)


def test_half_precision_is_read_as_single(file, network, tmp_path):
    half = {k: v.half() if v.is_floating_point() else v for k, v in network.state_dict().items()}
    torch.save(half, tmp_path / "w.pt")
    loaded = load_network(f"{file}:Generator", tmp_path / "w.pt")
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}


class Harmful:
    def __reduce__(self): return (print, ("run",))


@pytest.mark.parametrize("content", [Harmful(), {"a": 1}, [1, 2], {}], ids=["code", "numbers", "list", "empty"])
def test_a_file_that_is_no_state_dict_runs_nothing(tmp_path, capsys, content):
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(ValueError, match="w.pt"): state_dict_of(tmp_path / "w.pt")
    assert "run" not in capsys.readouterr().out


@pytest.mark.parametrize("model, message", [
    ("their_gan.py", "expected file.py:Class"), ("no_such_package.models:G", "cannot be imported"),
    ("torch.nn:NoSuchClass", "has no NoSuchClass")])
def test_a_model_that_is_not_there(model, message):
    with pytest.raises(ValueError, match=message): find_class(model)


def test_networks_that_do_not_fit_their_file(file, network, tmp_path):
    torch.save(network.state_dict(), tmp_path / "w.pt")
    for call, message in [
        (lambda: find_class(f"{file}:Generatr"), "expected one of Generator, Conditional, Unbounded"),
        (lambda: find_class("gone.py:G"), "found no gone.py"),
        (lambda: load_network(f"{file}:Generator", tmp_path / "w.pt", {"nz": 20}), r"main.0.weight has shape \(16, 32"),
        (lambda: load_network(f"{file}:Generator", None, {"depth": 20}), "nz=16, ngf=8, nc=3"),
        (lambda: load_network(f"{file}:Conditional", tmp_path / "w.pt"), "tensors that the file lacks"),
        (lambda: load_network(f"{file}:Generator", tmp_path / "gone.pt"), "gone.pt"),
    ]:
        with pytest.raises((ValueError, FileNotFoundError), match=message): call()
    with pytest.raises(TypeError, match="makes a int"): load_network(f"{file}:number")


def test_a_factory_with_arguments(file):
    assert load_network(f"{file}:scaled", None, {"width": 4}).main[0].out_channels == 16


def test_a_file_that_fails_is_named(tmp_path):
    (tmp_path / "broken.py").write_text("import no_such_package")
    with pytest.raises(ValueError, match="broken.py cannot be imported .ModuleNotFoundError"):
        find_class(f"{tmp_path}/broken.py:G")


def test_extra_tensors_are_left_out(network):
    state = network.state_dict() | {"loss.weight": torch.zeros(1)}
    assert set(fitting(network, state)) == set(network.state_dict())

def test_of_two_prefixes_with_the_same_names_the_one_whose_shapes_fit_is_taken():
    wide, narrow = nn.Sequential(nn.Linear(3, 5)), nn.Sequential(nn.Linear(2, 4))
    state = {f"{half}.{k}": v for half, part in (("encoder", wide), ("decoder", narrow), ("another", wide))
             for k, v in part.state_dict().items()}
    for network in (wide, narrow): assert fitting(network, state)["0.bias"].shape == network[0].bias.shape
    with pytest.raises(ValueError, match=r"0.weight has shape \(5, 3\), expected \(7, 3\)"):
        fitting(nn.Sequential(nn.Linear(3, 7)), state)


def test_shapes_ranges_and_classes(file, network):
    assert latent_shape_of(network) == (16, 1, 1)
    generator, shape = own_generator(network)
    assert shape == (16, 1, 1) and generator.value_range == (-1, 1)
    conditional, shape = own_generator(load_network(f"{file}:Conditional"), classes=3)
    assert shape == (12,) and list(conditional.inputs) == ["label"] and conditional.value_range == (0, 1)


def test_generators_that_cannot_be_used(file, network):
    for call, message in [
        (lambda: own_generator(network, [5]), r"latent=\[5\]"),
        (lambda: own_generator(network, classes=3), "expected a class beside the latent"),
        (lambda: own_generator(load_network(f"{file}:Conditional")), "label"),
        (lambda: own_generator(load_network(f"{file}:Unbounded")), r"expected those of \[0, 1\] or \[-1, 1\]"),
        (lambda: latent_shape_of(nn.ReLU()), "expected latent="),
        (lambda: range_of(torch.tensor([0.0, 255.0])), "0 to 255")]:
        with pytest.raises(ValueError, match=message): call()


def pictures(n=40, side=16):
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name, layer, kind, classes, fraction", [
    ("Generator", "main.5", "unit", None, 0.2), ("Generator", "main.5", "channel", None, 1),
    ("Conditional", "body.0", "unit", 3, 0.5)])
def test_trials_of_a_foreign_gan(file, name, layer, kind, classes, fraction):
    torch.manual_seed(0)
    generator, shape = own_generator(load_network(f"{file}:{name}"), classes=classes)
    trials = Trials(generator, torch.randn(1000, *shape, generator=torch.Generator().manual_seed(1)),
                    pictures(side=16 if name == "Generator" else 8), samples=12)
    settings = grid([layer], [kind], fractions=(fraction,), scales=(1, 2), correlated=(True,))
    table = trials.table(settings)
    assert len(table) == 3 and table.layer[0] == "regular" and table.change[0] == 0
    assert (table.change[1:] > 0).all() and table.change[2] > table.change[1] and (table.changed[1:] > 0).all()
    assert torch.equal(trials.images(settings[0]), trials.images(settings[0])) and 0 <= trials.regular.min()
    assert trials.table(settings).equals(table)


def test_a_layer_without_neurons_to_turn_on_is_a_row_without_numbers():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 2), nn.ReLU(), nn.Linear(2, 192), nn.Sigmoid(), nn.Unflatten(1, (3, 8, 8)))
    generator, shape = own_generator(network)
    trials = Trials(generator, torch.randn(1000, *shape), pictures(side=8), samples=4)
    table = trials.table(grid(["1"], fractions=(1,), scales=(1,), correlated=(False,)))
    assert table.novelty.isna().tolist() == [False, True]


def test_diversity_is_the_mean_over_pairs():
    x = pictures(5)
    pairs = [((x[i] - x[j]) ** 2).mean().sqrt().item() for i in range(5) for j in range(i)]
    assert diversity(x) == pytest.approx(np.mean(pairs), rel=1e-5)
    with pytest.raises(ValueError, match="two or more"): diversity(x[:1])


def test_what_is_suggested():
    import pandas as pd
    rows = pd.DataFrame({"change": [0, 0.1, 0.2, 0.1, 0], "novelty": [1, 1.2, 9, 5, 7], "diversity": 0.3,
                         "burnt": [0, 0, 0, 0.9, 0], "layer": list("rabcd"), "changed": 5})
    table = rows.reindex(columns=COLUMNS)
    assert suggested(table)["layer"] == "a"  # b changes too much, c is burnt, d changes nothing
    with pytest.raises(ValueError, match="none of 3 settings"): suggested(table.drop(1))
    with pytest.raises(ValueError, match="unknown change"): suggested(table.drop(columns="change").assign())


def test_black_and_white_are_the_ends():
    assert at_ends(torch.tensor([0.0, 1.0, 0.001, 0.5])) == 0.75


def test_the_notebook_on_a_gan_and_a_folder(file, network, tmp_path):
    "your_generator, from a model file and a folder of pictures to the ranked sheet."
    (tmp_path / "pictures").mkdir()
    for i, x in enumerate(pictures(30, 20)):
        Image.fromarray((255 * x.permute(1, 2, 0)).byte().numpy()).save(tmp_path / "pictures" / f"{i}.png")
    torch.save(network.state_dict(), tmp_path / "w.pt")
    parameters = {"model": f"{file}:Generator", "root": f"{tmp_path}/pictures", "samples": 24, "fit_to": 1000,
                  "weights": f"{tmp_path}/w.pt"}
    out = tmp_path / "executed.ipynb"
    command = [sys.executable, "-m", "papermill", "nbs/your_generator.ipynb", str(out), "--no-progress-bar"]
    for k, v in parameters.items(): command += ["-p", k, str(v)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert done.returncode == 0, done.stderr[-2000:]
    text = out.read_text()
    assert "image/png" in text and "novelty" in text
