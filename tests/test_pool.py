"Pools: blinded names and order, what the files say, and images from folders."
import hashlib, io, json, os, sqlite3
from pathlib import Path

import numpy as np, pandas as pd, pytest, torch
from PIL import Image

from creative_nb.core import load_tensors, save_tensors
from creative_nb.labels import label_studio_config, label_studio_tasks
from creative_nb.pool import Pool, blind, folder_pool, sheet
from creative_nb.question import QUESTIONS, Option, Question, as_question, options_of, register
from creative_nb.reader import Known, PoolFile, png
from creative_nb.store import Store
from people import KEY, make_pool


def test_each_label_has_a_text_and_a_meaning():
    for options in map(options_of, QUESTIONS):
        texts, meanings = {o.text for o in options.values()}, {o.meaning for o in options.values()}
        assert len(texts) == len(meanings) == len(options)
        assert all(o.text and o.meaning for o in options.values())
    studies = [options_of(q) for q in ("main", "earlier")]
    assert {len(options) for options in studies} == {4}
    for label in set().union(*studies):  # a label of both studies is the same in both
        assert len({options[label] for options in studies if label in options}) == 1


@pytest.mark.parametrize("questionnaire", ["main", "earlier"])
def test_a_saved_pool_and_its_tasks_say_nothing_of_the_manifest(tmp_path, questionnaire):
    pool, key = make_pool(30, questionnaire=questionnaire)
    pool.save(tmp_path / "pool.safetensors")
    Store(tmp_path / "s.sqlite", pool)
    texts = [(tmp_path / "pool.safetensors").read_bytes(), (tmp_path / "s.sqlite").read_bytes(),
             json.dumps(label_studio_tasks(pool)).encode(),
             label_studio_config(pool).encode()]
    for word in {*key.method, "method", "creativity_filter", "n_neurons", "input_1nn", "ice_mnist"}:
        assert not any(word.encode() in text for text in texts), word
    loaded = Pool.load(tmp_path / "pool.safetensors")
    assert torch.equal(loaded.images, pool.images) and torch.equal(loaded.references, pool.references)
    assert (loaded.items, loaded.name, loaded.questionnaire) == (pool.items, "digits", questionnaire)
    assert (loaded.labels, loaded.digest) == (tuple(options_of(questionnaire)), pool.digest)


def test_files_and_digests_keep_the_first_name_of_the_earlier_questionnaire(tmp_path):
    pool, _ = make_pool(3, questionnaire="earlier")
    pool.save(tmp_path / "pool.safetensors")
    tensors, about = load_tensors(tmp_path / "pool.safetensors")
    assert set(tensors) == {"images", "primer"}
    assert about["study"] == "prior" and as_question(about["question"]) == QUESTIONS["earlier"]
    save_tensors(tmp_path / "first.safetensors", tensors, {k: about[k] for k in ("name", "study", "items")})
    assert {kind(tmp_path / "first.safetensors").digest for kind in (Pool.load, PoolFile)} == {pool.digest}
    told = json.dumps(["digits", "prior", list(pool.items), [3, 1, 6, 5], 2]).encode()
    assert pool.digest == hashlib.sha256(b"".join([told, pool.images.numpy(), pool.references.numpy()])).hexdigest()
    Store(tmp_path / "s.sqlite", pool, repeats=0)
    with sqlite3.connect(tmp_path / "s.sqlite") as db:
        assert db.execute("SELECT value FROM about WHERE key = 'study'").fetchone() == ('"prior"',)
    for again in (Store(tmp_path / "s.sqlite"), Pool.load(tmp_path / "pool.safetensors")):
        assert again.questionnaire == "earlier" and again.digest == pool.digest


def test_names_and_order_depend_on_the_seed_alone():
    images = torch.rand(9, 1, 4, 4)
    one, other = (pd.DataFrame({"method": list(m)}) for m in ("abcabcabc", "cccbbbaaa"))
    (a, key_a), (b, key_b) = (blind(images, m, images[:1], "x", seed=0) for m in (one, other))
    assert a.items == b.items and torch.equal(a.images, b.images) and key_a.method.tolist() != key_b.method.tolist()
    c, key_c = blind(images.flip(0), one.iloc[::-1], images[:1], "x", seed=0)  # the same in another order of input
    pairs = lambda pool, key: sorted(zip(key.method, map(bytes, pool.images.numpy())))
    assert c.items == a.items and pairs(c, key_c) == pairs(a, key_a)
    seeded, named = blind(images, one, images[:1], "x", seed=1)[0], blind(images, one, images[:1], "y", seed=0)[0]
    assert seeded.items != a.items != named.items


def test_the_secret_of_a_pool_is_in_its_manifest_alone(tmp_path):
    images, rows = torch.rand(40, 1, 4, 4), pd.DataFrame({"method": ["a", "b"] * 20})
    pool, key = blind(images, rows, images[:1], "x")
    pool.save(tmp_path / "pool.safetensors")
    Store(tmp_path / "s.sqlite", pool, repeats=5).begin("Ann")
    seed = int(key.blinding_seed.unique().item())
    assert blind(images, rows, images[:1], "x", seed=seed)[0].items == pool.items
    for file in ("pool.safetensors", "s.sqlite"): assert str(seed).encode() not in (tmp_path / file).read_bytes()


def test_nobody_can_guess_methods_from_the_public_code(tmp_path):
    "A program that has the code, the pool and the default seeds is right no more often than by chance."
    images, right = torch.rand(500, 1, 2, 2), []
    rows = pd.DataFrame({"method": np.repeat(["a", "b", "c", "d", "e"], 100)})
    for _ in range(4):
        key = blind(images, rows, images[:1], "mnist")[1]
        guessed = blind(images, rows, images[:1], "mnist", seed=0)[1]
        right.append((guessed.method.to_numpy() == key.method.to_numpy()).mean())
        assert not set(key["item"]) & set(guessed["item"])
    assert abs(np.mean(right) - 0.2) < 4 * (0.2 * 0.8 / 2000) ** 0.5


def test_a_question_travels_with_its_pool(tmp_path):
    scale = [Option(k, k.title(), f"It is {k}.", s) for s, k in enumerate(("plain", "pleasant", "beautiful"))]
    beauty = Question("beauty", "How beautiful?", "You will see {n} images.", scale, consent="I agree.")
    images, rows = torch.rand(6, 3, 4, 4), pd.DataFrame({"method": list("ababab"), "caption": list("uvwxyz")})
    rows = rows.assign(answer=["plain", *[""] * 4, "plain"], feedback=["It is noise.", *[""] * 5])
    pool, key = blind(images, rows, images[:1], "x", beauty)
    pool.save(tmp_path / "pool.safetensors")
    for again in (Pool.load(tmp_path / "pool.safetensors"), PoolFile(tmp_path / "pool.safetensors")):
        assert (again.question, again.captions, again.known) == (beauty, pool.captions, pool.known)
        assert again.digest == pool.digest and again.labels == ("plain", "pleasant", "beautiful")
    assert dict(zip(key["item"], key.caption)) == dict(zip(pool.items, pool.captions))
    assert sorted(k.feedback for k in pool.known.values()) == ["", "It is noise."]
    other = Question("beauty", "How beautiful, really?", "You will see {n} images.", scale, consent="I agree.")
    seed = int(key.blinding_seed[0])
    assert blind(images, rows, images[:1], "x", other, seed=seed)[0].digest != pool.digest
    assert Store(tmp_path / "s.sqlite", pool, repeats=2).question == beauty == Store(tmp_path / "s.sqlite").question
    with pytest.raises(ValueError, match="another question"): register(Question("main", "?", "Main.", scale))


@pytest.mark.parametrize("known", [
    {"no": Known("creative")}, {"a": Known("nice")}, dict.fromkeys("ab", Known("creative"))])
def test_known_answers_are_answers_to_items_of_the_pool(known):
    x = torch.zeros(2, 1, 3, 3, dtype=torch.uint8)
    with pytest.raises(ValueError, match="known"): Pool(x, ("a", "b"), x[:0], "x", known=known)


def test_pairs_of_sheets(tmp_path):
    sheets = torch.stack([sheet(torch.full((9, 3, 8, 8), v), 3, gap=1) for v in (0.0, 1.0)])
    assert sheets.shape == (2, 3, 26, 26) and sheets[0, :, 8].min() == 1 and sheets[0, :, :8, :8].max() == 0
    pairs = sheets.expand(5, 2, 3, 26, 26)
    pool, _ = blind(pairs, pd.DataFrame({"method": ["am"] * 5}), torch.zeros(0, 3, 8, 8), "x", "realism")
    pool.save(tmp_path / "pool.safetensors")
    assert PoolFile(tmp_path / "pool.safetensors").image(pool.items[3]).shape == (2, 3, 26, 26)
    with pytest.raises(ValueError, match="images="):
        blind(pairs, pd.DataFrame({"method": "a"}, range(5)), pairs[0, :1], "x")
    with pytest.raises(ValueError, match="Label Studio"): label_studio_tasks(pool)


def test_a_changed_pixel_is_found_without_loading_the_pool(tmp_path):
    pool, _ = make_pool(200)
    pool.save(tmp_path / "pool.safetensors")
    PoolFile(tmp_path / "pool.safetensors").check_whole()
    data = bytearray((tmp_path / "pool.safetensors").read_bytes())
    data[-7] ^= 1
    (tmp_path / "pool.safetensors").write_bytes(data)
    with pytest.raises(ValueError, match="damaged"): PoolFile(tmp_path / "pool.safetensors").check_whole()


def test_neither_place_nor_name_hints_at_the_method():
    method = np.repeat(["a", "b"], 50)
    places, names = [], []
    for seed in range(40):
        manifest = pd.DataFrame({"method": method})
        _, key = blind(torch.zeros(100, 1, 1, 1), manifest, torch.zeros(0, 1, 1, 1), "x", seed=seed)
        first = key.method.to_numpy() == "a"
        places.append(np.flatnonzero(first).mean())
        names.append(key["item"].rank().to_numpy()[first].mean() - 1)
    # a mean of 50 of 100 places has standard deviation 2.9
    for means in (places, names): assert abs(np.mean(means) - 49.5) < 4 * 2.9 / 40 ** 0.5


def test_manifest_rows_fit_the_pool():
    images = torch.arange(20).view(20, 1, 1, 1) / 255
    pool, key = blind(images, pd.DataFrame({"value": range(20)}, index=range(100, 120)), images[:0], "x")
    assert pool.images.flatten().tolist() == key.value.tolist()
    assert key.columns[0] == "item" and key["item"].tolist() == list(pool.items)


@pytest.mark.parametrize("change, word", [
    (dict(images=torch.full((12, 1, 6, 5), 1.5)), "images"),
    (dict(images=torch.full((12, 1, 6, 5), float("nan"))), "images"),
    (dict(images=torch.zeros(12, 1, 6, 5, dtype=torch.uint8)), "images"),
    (dict(images=torch.zeros(12, 2, 6, 5)), "images"), (dict(images=np.zeros((12, 1, 6, 5))), "images"),
    (dict(images=torch.zeros(11, 1, 6, 5)), "manifest"),
    (dict(references=torch.zeros(1, 3, 6, 5)), "references"), (dict(question="pilot"), "question"),
    (dict(seed=-1), "seed"),
    (dict(images=torch.zeros(0, 1, 6, 5), manifest=pd.DataFrame({"method": []})), "images"),
    (dict(name=None), "name=None"), (dict(name="a\nb"), "name="), (dict(manifest=["a"]), "manifest="),
    (dict(manifest=pd.DataFrame([[0, 1]] * 12, columns=["a", "a"])), "manifest")])
def test_blind_refuses(change, word):
    good = dict(images=torch.zeros(12, 1, 6, 5), manifest=KEY.drop(columns="item"),
                references=torch.zeros(1, 1, 6, 5), name="x")
    blind(**good)
    with pytest.raises((TypeError, ValueError), match=word): blind(**good | change)


@pytest.mark.parametrize("items", [("a", "a"), ("a",), ("a", "b/c"), ("a", ""), ("a", 3), ("a", "x" * 61), ("a", ".."),
                                   None, "ab"])
def test_a_pool_refuses_bad_items(items):
    images, none = (torch.zeros(n, 1, 3, 3, dtype=torch.uint8) for n in (2, 0))
    with pytest.raises((TypeError, ValueError), match="items"): Pool(images, items, none, "x")


def test_the_digest_sees_every_part():
    x, none = torch.zeros(2, 1, 2, 2, dtype=torch.uint8), torch.zeros(0, 1, 2, 2, dtype=torch.uint8)
    variants = [Pool(x, ("a", "b"), none, "n"), Pool(x + 1, ("a", "b"), none, "n"), Pool(x, ("b", "a"), none, "n"),
                Pool(x, ("a", "b"), x[:1], "n"), Pool(x, ("a", "b"), none, "m"),
                Pool(x, ("a", "b"), none, "n", "earlier"),
                Pool(x.view(2, 1, 1, 4), ("a", "b"), none.view(0, 1, 1, 4), "n")]
    assert len({p.digest for p in variants}) == len(variants)


def test_load_refuses_other_files(tmp_path):
    with pytest.raises(FileNotFoundError): Pool.load(tmp_path / "none.safetensors")
    save_tensors(tmp_path / "other.safetensors", {"images": torch.zeros(1)})
    with pytest.raises(ValueError, match="no pool"): Pool.load(tmp_path / "other.safetensors")
    (tmp_path / "junk.safetensors").write_bytes(b"junk" * 9)
    with pytest.raises(ValueError, match="damaged"): Pool.load(tmp_path / "junk.safetensors")


def test_folder_pool(tmp_path):
    for method, file, colour in (("ours", "a.png", 10), ("ours", "deep/b.png", 20), ("theirs", "c.jpg", 200),
                                 ("references", "p.png", 90)):
        (tmp_path / "lab" / method / file).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (5, 4), colour).save(tmp_path / "lab" / method / file)
    (tmp_path / "lab" / "notes.txt").write_text("not an image")
    pool, key = folder_pool(tmp_path / "lab")
    assert pool.name == "lab" and pool.images.shape == (3, 1, 4, 5)
    assert pool.references.flatten().unique().tolist() == [90]
    methods = {"ours/a.png": "ours", "ours/deep/b.png": "ours", "theirs/c.jpg": "theirs"}
    colours = {"ours/a.png": 10, "ours/deep/b.png": 20, "theirs/c.jpg": 200}
    assert dict(zip(key.file, key.method)) == methods
    assert dict(zip(key.file, pool.images[:, 0, 0, 0].tolist())) == colours
    elsewhere, key = folder_pool(tmp_path / "lab", references=tmp_path / "lab" / "theirs", name="x")
    assert set(key.method) == {"ours", "references"} and len(elsewhere.references) == 1
    Image.new("RGB", (9, 9), (255, 0, 0)).save(tmp_path / "lab" / "ours" / "d.png")
    with pytest.raises(ValueError, match="size"): folder_pool(tmp_path / "lab")
    assert folder_pool(tmp_path / "lab", size=(6, 7))[0].images.shape == (4, 3, 6, 7)
    with pytest.raises(FileNotFoundError, match="root"): folder_pool(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match="references"):
        folder_pool(tmp_path / "lab", references=tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="subfolder"): folder_pool(tmp_path / "empty")


def test_colour_png():
    image = torch.arange(3 * 2 * 4, dtype=torch.uint8).view(3, 2, 4)
    assert (np.asarray(Image.open(io.BytesIO(png(image)))) == image.permute(1, 2, 0).numpy()).all()


@pytest.mark.parametrize("name", ["", " ", "a\nb", "a\0b", None, 3])
def test_a_pool_refuses_names_that_are_no_line(name):
    images = torch.zeros(1, 1, 3, 3, dtype=torch.uint8)
    with pytest.raises((TypeError, ValueError), match="name="): Pool(images, ("a",), images[:0], name)


def test_a_pool_owns_its_pixels(tmp_path):
    images = torch.arange(54, dtype=torch.uint8).view(6, 1, 3, 3)
    pool = Pool(images, list("abcdef"), images[:2], "x")
    pool.save(tmp_path / "pool.safetensors")  # references that are part of the images
    images.zero_()
    loaded = Pool.load(tmp_path / "pool.safetensors")
    assert loaded.digest == pool.digest and loaded.items == pool.items == tuple("abcdef")
    assert torch.equal(loaded.references, loaded.images[:2]) and pool.images.max() == 53


def folder_of(root: Path, *files: str) -> Path:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4)).save(root / file, "PNG")
    return root


def test_folders_behind_links_count_and_hidden_ones_do_not(tmp_path):
    root = folder_of(tmp_path / "lab", "a/0.png", "a/.checkpoints/1.png", ".hidden/2.png")
    (root / "b").symlink_to(folder_of(tmp_path / "disk", "3.PNG"), target_is_directory=True)
    (root / "a" / "frames.png").mkdir()
    assert sorted(folder_pool(root)[1].file) == ["a/0.png", "b/3.PNG"]


def test_files_that_are_left_out_are_told(tmp_path):
    root = folder_of(tmp_path / "lab", "a/0.png")
    (root / "a" / "1.xcf").write_text("a drawing")
    with pytest.warns(UserWarning, match="left out 1 files .*1.xcf"): folder_pool(root)


@pytest.mark.skipif(os.name != "posix" or os.uname().sysname != "Linux", reason="file names are bytes on Linux only")
def test_names_that_no_table_can_hold_are_refused(tmp_path):
    root = folder_of(tmp_path / "lab", "a/0.png")
    os.rename(root / "a" / "0.png", os.path.join(os.fsencode(root / "a"), b"caf\xe9.png"))
    with pytest.raises(ValueError, match="caf.*UTF-8"): folder_pool(root)
    for name in ("=SUM(A1)", "@home", "-1", "+1"):
        root = folder_of(tmp_path / name[1:], f"{name}/0.png")
        with pytest.raises(ValueError, match="first letter"): folder_pool(root)


def test_folders_with_numbers_as_names(tmp_path):
    pool, key = folder_pool(folder_of(tmp_path / "2024", "001/0.png", "2/0.png"), size=6)
    assert pool.name == "2024" and set(key.method) == {"001", "2"} and set(key.dataset) == {"2024"}
    assert pool.images.shape == (2, 1, 6, 6)


@pytest.mark.parametrize("change", [
    dict(image=torch.zeros(2, 3, 3, dtype=torch.uint8)), dict(image=torch.zeros(1, 3, 3)), dict(image=None),
    dict(enlarge=-1), dict(enlarge=0), dict(enlarge=1.5)])
def test_png_refuses(change):
    with pytest.raises((TypeError, ValueError), match=f"{next(iter(change))}="):
        png(**dict(image=torch.zeros(1, 3, 3, dtype=torch.uint8)) | change)
