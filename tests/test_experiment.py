"Networks that are given, kept or interrupted: what is not what the setting asks for is refused or made again."
import pytest, torch

from creative_nb.core import load_tensors, save_tensors
from creative_nb.data import load_data
from creative_nb.experiment import Networks, Run
from creative_nb.setting import Network, load_setting
from creative_nb.models import Classifier, load_model, save_model
from creative_nb.training import Schedule, train_to_file

SHAPE = {"hidden": [16, 8], "latent": 4}


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    "A checkpoint of a small VAE trained on digits."
    from creative_nb.models import VAE
    path, data = tmp_path_factory.mktemp("given") / "vae.safetensors", load_data("digits")
    config = {"image_shape": list(data.image_shape), **SHAPE}
    train_to_file(path, VAE, config, data, Schedule(epochs=1), 0)
    return path


def networks(tmp_path, **vae) -> Networks:
    change = {"vae": {**SHAPE, "epochs": 1} | vae, "artifacts": str(tmp_path), "checkpoints": ""}
    return Networks(load_setting("das2020", "digits", "smoke", change))


def rewritten(path, tmp_path, **about):
    tensors, config = load_tensors(path)
    save_tensors(tmp_path / "other.safetensors", tensors, config | about)
    return str(tmp_path / "other.safetensors")


def test_a_given_checkpoint_is_used(given, tmp_path):
    found = networks(tmp_path, file=str(given))
    assert found.layer == "hidden2" and found.vae.about["seed"] == 0 and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("shape, message", [
    ({"hidden": [16]}, r"vae file=.*hidden \[16\] \(the file has \[16, 8\]\)"), ({"latent": 5}, "latent 5"),
    ({"hidden": (8, 16)}, "hidden"), ({"image_shape": [1, 8, 8], "init": "torch"}, "init")])
def test_a_checkpoint_of_another_network_is_refused(given, tmp_path, shape, message):
    with pytest.raises(ValueError, match=message): _ = networks(tmp_path, file=str(given), **shape).vae


def test_a_checkpoint_of_other_data_is_refused_unless_it_is_wanted(given, tmp_path):
    file = rewritten(given, tmp_path, dataset="mnist", data_hash="other")
    with pytest.raises(ValueError, match="vae file=.*data_hash.*trained on mnist: other_data=True"):
        _ = networks(tmp_path, file=file).vae
    assert networks(tmp_path, file=file, other_data=True).vae.config["latent"] == 4


def test_a_checkpoint_of_another_kind_is_refused(tmp_path):
    save_model(Classifier((1, 8, 8)), tmp_path / "c.safetensors")
    with pytest.raises(ValueError, match="vae file=.*kind VAE.*has Classifier"):
        _ = networks(tmp_path, file=str(tmp_path / "c.safetensors")).vae


def test_weights_that_are_no_numbers_are_refused(given, tmp_path):
    tensors, config = load_tensors(given)
    name = next(iter(tensors))
    tensors[name].view(-1)[3] = torch.nan
    save_tensors(tmp_path / "nan.safetensors", tensors, config)
    with pytest.raises(ValueError, match=f"nan.safetensors: {name} holds NaN"): load_model(tmp_path / "nan.safetensors")


def test_a_kept_network_that_is_damaged_is_trained_again(tmp_path):
    path = networks(tmp_path).path("vae")
    before = {k: v.clone() for k, v in load_tensors(path)[0].items()}  # what is loaded is a view of the file
    content = bytearray(path.read_bytes())
    for at in range(len(content) // 2, len(content), 97): content[at] ^= 1
    path.write_bytes(content)
    path.with_name(path.name + ".state").write_bytes(content[:900])  # and what was left of its training is too
    after = load_tensors(networks(tmp_path).path("vae"))[0]
    assert all(torch.equal(before[k], after[k]) for k in before)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("change, message", [
    ({"vae": {"epochs": "3"}}, "digits of das2020, vae: epochs='3': expected"),
    ({"vae": {"decay": 2}}, "decay=2: expected"), ({"device": "gpu"}, "device='gpu'"),
    ({"vae": {"file": "none.safetensors"}}, "vae: file='none.safetensors': expected"), ({"seed": -1}, "seed=-1"),
    ({"vae": 5}, "network=5: expected a dict"), ({"size": [0, 3]}, r"size=\[0, 3\]"),
    ({"vae": {"hiden": [3]}}, "hiden.*expected some of"), ({"epochs": 3}, "epochs"), ({"dataset": "cifar"}, "cifar")])
def test_a_wrong_setting_says_what_is_wrong(change, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        load_setting("das2020", "digits", "smoke", change)


def test_a_folder_needs_its_place():
    with pytest.raises(ValueError, match="root=''.*ROOT=pictures"):
        _ = Networks(load_setting("das2020", "folder", "smoke")).data


@pytest.mark.parametrize("call, message", [
    (lambda: Run("das2020", None), "setting=None"), (lambda: Run("", "digits"), "paper=''"),
    (lambda: Run("das2020", "digits", "smoke").sample("low-active", 0), "samples=0: expected"),
    (lambda: Run("das2020", "digits", "smoke").sample("unheard", 5), "method: unknown unheard"),
    (lambda: Run("das2020", "digits", "smoke").networks.path("gan"), "kind='gan': expected one of 'vae'"),
    (lambda: Network.of([1]), "about=.*expected a dict")])
def test_bad_arguments_are_named(call, message):
    with pytest.raises((ValueError, TypeError), match=message): call()
