"The GAN: resume after a real kill, the average of the weights, augmentation, classes, and the warning of a collapse."
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch

from creative_nb import adversarial
from creative_nb.adversarial import (AdversarialTrainer, GANSchedule, augmented, class_sheet, discriminator_loss, drawn,
                                     follow, sliced_wasserstein, spread, standing, warning_of)
from creative_nb.core import load_config, load_tensors, repo_root, standard_normal
from creative_nb.data import ImageData, load_data, Split
from creative_nb.decode import CreativeDecoder, LowActive
from creative_nb.gan_files import trained_gan
from creative_nb.gan import ConditionalGenerator, ProjectionDiscriminator
from creative_nb.training import fresh

SHAPE = {"image_shape": [3, 16, 16], "classes": 2, "width": 4}
TRAIN = """
import sys, warnings, torch
sys.path.insert(0, sys.argv[2])
from test_adversarial import small_data
import creative_nb.adversarial as a
import creative_nb.gan_files as g
init = a.AdversarialTrainer.__init__.__wrapped__
init.__defaults__ = (*init.__defaults__[:-3], 0.0, 20, None)
g.train_gan_to_file(sys.argv[1], small_data(), a.GANSchedule(steps=60, batch_size=8), 3, {"width": 4}, {"width": 4}, 20)
"""


def small_data() -> ImageData:
    "Red or blue squares of 16 x 16, as bytes."
    random = torch.Generator().manual_seed(0)
    labels = torch.arange(60) % 2
    images = torch.randint(0, 80, (60, 3, 16, 16), generator=random, dtype=torch.uint8)
    images[labels == 0, 0] += 150
    images[labels == 1, 2] += 150
    parts = [Split(images[s], labels[s]) for s in (slice(0, 40), slice(40, 50), slice(50, 60))]
    return ImageData("squares", *parts, ("red", "blue"), (0, 1))


SHORT = GANSchedule(steps=4, batch_size=8)


def trainer(schedule=SHORT, **options) -> AdversarialTrainer:
    models = fresh(ConditionalGenerator, SHAPE, 0), fresh(ProjectionDiscriminator, SHAPE, 0)
    return AdversarialTrainer(*models, small_data(), schedule, **options)


def weights(model): return torch.cat([v.flatten().double() for v in model.state_dict().values()])


def step_in(state): return load_config(state)["step"] if state.is_file() else 0


def test_killed_and_resumed_is_the_same_generator(tmp_path):
    "SIGKILL at a moment that nobody chose, twice; then the same command again: the same weights, bit for bit."
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CREATIVE_NB_PROGRESS": "0"}
    command = lambda name: [sys.executable, "-c", TRAIN, str(tmp_path / name), os.path.dirname(__file__)]
    subprocess.run(command("whole.safetensors"), env=environment, check=True)
    state, kills = tmp_path / "killed.state.safetensors", 0
    for at_least in (7, 31):
        process = subprocess.Popen(command("killed.safetensors"), env=environment)
        while process.poll() is None and step_in(state) < at_least: time.sleep(0.005)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.wait()
    assert kills == 2 and not (tmp_path / "killed.safetensors").exists()
    subprocess.run(command("killed.safetensors"), env=environment, check=True)
    (whole, about), (resumed, other) = (load_tensors(tmp_path / f"{n}.safetensors") for n in ("whole", "killed"))
    assert all(torch.equal(whole[k], resumed[k]) for k in whole)
    assert about["history"] == other["history"] and [row["step"] for row in about["history"]] == [20, 40, 60]
    assert not state.exists() and (tmp_path / "killed_samples.png").is_file()


def test_a_state_of_another_run_is_refused(tmp_path):
    state = tmp_path / "gan.state.safetensors"
    trainer(state=state).fit()
    with pytest.raises(ValueError, match="is of another run"): trainer(GANSchedule(steps=5, batch_size=8), state=state)


def test_the_order_of_the_pictures_is_a_permutation_in_each_pass():
    seen, made = [], trainer(GANSchedule(steps=5, batch_size=8, flips=False, shift=0))
    for made.step in range(10): seen.append(made._real(torch.Generator())[0])
    first, second = (sorted(x.sum().item() for x in torch.cat(part)) for part in (seen[:5], seen[5:]))
    assert first == second and not torch.equal(seen[0], seen[5])


def test_average_weights():
    "By hand: what is kept of the average, at each step, and the other share early on; buffers are copied."
    made = trainer(GANSchedule(steps=4, batch_size=8, ema=0.75, ema_early=0.5, ema_from=1))
    expected = made.average.layer1[0].weight.clone()
    for keep in (0.5, 0.75, 0.75):
        made._step()
        expected = keep * expected + (1 - keep) * made.generator.layer1[0].weight
    assert torch.allclose(made.average.layer1[0].weight, expected, atol=1e-7)
    assert torch.equal(made.average.layer1[2].running_var, made.generator.layer1[2].running_var)


def test_standing_statistics_leave_the_generator_alone():
    made = trainer()
    before = weights(made.generator)
    still = standing(made.generator, small_data().train.labels, rounds=3)
    assert torch.equal(weights(made.generator), before) and not still.training
    assert torch.equal(weights(standing(made.generator, small_data().train.labels, rounds=3)), weights(still))


@pytest.mark.parametrize("change", ["colour", "translation", "cutout"])
def test_augmentation_is_differentiable_and_follows_from_its_seed(change):
    x = torch.rand(6, 3, 16, 16, requires_grad=True)
    one, same, other = (augmented(x, [change], torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    one.square().sum().backward()
    assert torch.equal(one, same) and not torch.equal(one, other) and not torch.equal(one, x)
    assert all(g.abs().sum() > 0 for g in x.grad)
    assert torch.equal(augmented(x, [], torch.Generator()), x)


def test_augmentation_changes_each_picture_in_its_own_way():
    x = torch.rand(1, 3, 16, 16).expand(6, -1, -1, -1)
    changed = augmented(x, ["colour", "translation", "cutout"], torch.Generator().manual_seed(0))
    assert len({round(image.sum().item(), 4) for image in changed}) == 6


def test_translation_moves_by_an_eighth_at_most():
    x = torch.full((500, 1, 16, 16), 0.5)
    x[:, :, 8, 8] = 1
    places = augmented(x, ["translation"], torch.Generator().manual_seed(0)).squeeze(1).flatten(1).argmax(1)
    rows, columns = places // 16, places % 16
    assert rows.unique().tolist() == columns.unique().tolist() == [6, 7, 8, 9, 10]


def test_cutout_greys_a_box_of_half_the_side():
    boxes = (augmented(torch.ones(400, 1, 16, 16), ["cutout"], torch.Generator().manual_seed(0)) == 0.5).sum((1, 2, 3))
    assert boxes.max() == 64 and boxes.min() >= 16  # a quarter of the picture; of a box in a corner, a quarter


def test_the_generator_is_conditional_and_learns_the_classes():
    made = trainer(GANSchedule(steps=150, batch_size=16, lr=2e-3, ema=0.9, ema_early=0.9), look_every=75).fit()
    red, blue = class_sheet(made.average, each=16).split(16)
    redness = lambda images: images.mean((2, 3))[:, 0] - images.mean((2, 3))[:, 2]
    assert (redness(red) > 0).all() and (redness(blue) < 0).all()
    assert made.history[-1]["distance"] < made.history[0]["distance"]


def test_an_image_does_not_depend_on_its_batch():
    generator = standing(trainer().generator, small_data().train.labels)
    z, labels = drawn(8, small_data().train.labels, 100, 0, "test")
    with torch.no_grad(): together, alone = generator(z, labels), generator(z[3:4], labels[3:4])
    assert torch.allclose(together[3], alone[0], atol=1e-6)


def test_third_layer_decoding_by_class():
    generator = ConditionalGenerator(**SHAPE).eval()
    decoder = CreativeDecoder(generator.by_class(), "layer3").fit(standard_normal(1000, (100,), seed=0))
    labels = torch.tensor([0, 1])
    method = LowActive(fraction=0.1)
    images = (decoder.decode(decoder.latents_[:2], method, inputs={"labels": y}) for y in (labels, 1 - labels))
    assert not torch.equal(*images)


def test_collapse_is_warned_of():
    "A generator that learns nothing stays grey: its samples are all the same."
    made = trainer(GANSchedule(steps=4, batch_size=8, lr=1e-12), look_every=2)
    with pytest.warns(UserWarning, match="step 4: collapse: the samples' spread is 0.0"): made.fit()
    assert made.history[0]["warning"] == "" and "collapse" in made.history[1]["warning"]
    assert warning_of(0.2, 0.25, 1.38) == "" and "has won" in warning_of(0.2, 0.25, 0.01)


def test_distance_is_zero_for_equal_sets_and_a_shift_in_pixel_values():
    x = torch.rand(20, 3, 16, 16)
    assert sliced_wasserstein(x, x) == 0
    near, far = (sliced_wasserstein(x, x + d) for d in (0.1, 0.2))
    assert far == pytest.approx(2 * near, rel=1e-3) and near == pytest.approx(0.08, rel=0.3)  # 0.1 E|N(0, 1)|
    assert spread(x) == pytest.approx(12**-0.5, rel=0.05)


def test_follow_moves_all_parameters():
    a, b = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    follow(a, b, 0.0)
    assert torch.equal(weights(a), weights(b))


def test_hinge_and_spectral_norm():
    made = trainer(GANSchedule(steps=2, batch_size=8, loss="hinge")).fit()
    assert made.history[-1]["discriminator"] == pytest.approx(2, abs=0.2)
    assert discriminator_loss(torch.tensor([2.0]), torch.tensor([-2.0]), "hinge") == 0


def test_a_committed_generator_serves_if_it_has_what_is_asked_for(tmp_path):
    options = dict(seed=1, generator={"width": 2}, discriminator={"width": 2}, artifacts=str(tmp_path / "a"))
    schedule = GANSchedule(steps=2, batch_size=8)
    path = trained_gan(small_data(), schedule, **options, checkpoints="")
    kept = tmp_path / "squares_gan.safetensors"
    path.rename(kept)
    assert trained_gan(small_data(), schedule, **options, checkpoints=str(tmp_path)) == kept
    other = trained_gan(small_data(), replace(schedule, steps=3), **options, checkpoints=str(tmp_path))
    assert other.parent.name == "a"


def test_bad_data_and_losses_that_are_not_finite():
    with pytest.raises(ValueError, match="expected .3, 16, 16. and 2"):
        AdversarialTrainer(ConditionalGenerator(), ProjectionDiscriminator(), small_data())
    made = trainer()
    torch.nn.init.constant_(made.discriminator.out.bias, torch.inf)
    with pytest.raises(FloatingPointError, match="at step 1"): made._step()
    assert adversarial.LOOKED_AT >= 64


def test_the_committed_gan_serves():
    "The record of the file is that of the declared training of notebook 13."
    if not (repo_root() / "data/raw/wikiart/labels.csv").is_file(): pytest.skip("the paintings are not in data/raw")
    paintings = load_data("wikiart", download=False)
    kept = repo_root() / "data/checkpoints/wikiart_gan.safetensors"
    assert trained_gan(paintings, GANSchedule(steps=9000)) == kept
