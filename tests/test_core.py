"Digests of code, extensions, and files of tensors."
import importlib.util
import inspect
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from creative_nb import common, core
from creative_nb.core import EXTENSIONS, code_of, load_config, load_extensions, load_tensors, save_tensors, source_of

SOURCE = '''
"""A module."""
import math
from creative_nb.core import patch, progress, rng

FACTOR = 2.0
UNUSED = 1
METHODS = {}

def register(f):
    METHODS[f.__name__] = f
    return f

def inner(x): return math.sin(x)

def helper(x):
    "A helper."
    return inner(x) + FACTOR

def alone(x): return x

class Base:
    def run(self, x): return helper(x)

class Model(Base):
    "A model."
    size = 3

    def step(self, x: int) -> float:
        return self.run(progress([x])[0])  # a comment

@patch
@property
def late(self: Model): return rng(self.size).random()
'''


def module_of(folder, source, name="synthetic"):
    "A module of its own, from a file."
    path = folder / f"{name}.py"
    path.write_text(source)
    spec = importlib.util.spec_from_file_location(name, path)
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def edited(old, new):
    assert SOURCE.count(old) == 1
    return SOURCE.replace(old, new)


@pytest.fixture(autouse=True)
def forget():
    "The modules of a test are forgotten after it."
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.split(".")[0] in ("synthetic", EXTENSIONS): del sys.modules[name]


@pytest.mark.parametrize("old,new", [
    ('"""A module."""', '"""Another docstring."""'), ('"A model."', '"Said otherwise."'), ("  # a comment", ""),
    ("def inner(x): return math.sin(x)", "def inner(x):\n\n    return (math.sin(x))"),
    ("UNUSED = 1", "UNUSED = 2"), ("def alone(x): return x", "def alone(x): return -x"),
    ("METHODS = {}", "METHODS = {'other': Exception}"), ("def alone", "class More(Exception): pass\n\ndef alone"),
    ("class Base:", "@register\ndef another(x): return x\n\nclass Base:")])
def test_what_decides_nothing_changes_no_digest(tmp_path, old, new):
    before = code_of(module_of(tmp_path, SOURCE).Model)
    assert code_of(module_of(tmp_path, edited(old, new), "synthetic").Model) == before


@pytest.mark.parametrize("old,new", [
    ("FACTOR = 2.0", "FACTOR = 2.5"), ("math.sin(x)", "math.cos(x)"), ("inner(x) + ", "inner(x) - "),
    ("return helper(x)", "return helper(-x)"), ("size = 3", "size = 4"), ("self.run(", "-self.run("),
    ("rng(self.size).random()", "rng(self.size, 'late').random()"), ("@property\n", ""),
    ("class Model(Base)", "class Model")])
def test_what_is_used_changes_the_digest(tmp_path, old, new):
    before = code_of(module_of(tmp_path, SOURCE).Model)
    assert code_of(module_of(tmp_path, edited(old, new), "synthetic").Model) != before


def test_names_are_followed_through_the_project_but_not_into_what_only_shows(tmp_path, monkeypatch):
    "`Model` uses `rng` and `progress` of core: another `rng` gives other numbers, another progress bar does not."
    model, original = module_of(tmp_path, SOURCE).Model, source_of
    before = code_of(model)
    for name, same in (("rng", False), ("progress", True)):
        other = inspect.unwrap(getattr(core, name))
        monkeypatch.setattr(core, "source_of", lambda o, other=other: original(o) + "x = 1\n" * (o is other))
        assert (code_of(model) == before) is same
    monkeypatch.setattr(core, "source_of", original)
    assert code_of(model) == before


def test_modules_are_followed_by_attribute(tmp_path, monkeypatch):
    use = module_of(tmp_path, "from creative_nb import core\ndef f(n): return core.standard_normal(n, (2,), 0)").f
    before, original = code_of(use), source_of
    monkeypatch.setattr(core, "source_of", lambda o: original(o) + "x = 1\n" * (o is inspect.unwrap(core.rng)))
    assert code_of(use) != before  # `standard_normal` uses `rng`


def test_order_and_repetition_do_not_count():
    assert code_of(core.rng, core.batches) == code_of(core.batches, core.rng, core.rng) != code_of(core.rng)


def test_module_counts_whole(tmp_path):
    before = code_of(module_of(tmp_path, SOURCE))
    assert code_of(module_of(tmp_path, edited("UNUSED = 1", "UNUSED = 2"))) != before
    assert code_of(module_of(tmp_path, edited("  # a comment", ""))) == before


def test_bound_methods_and_properties(tmp_path):
    model = module_of(tmp_path, SOURCE).Model
    assert code_of(model().step) == code_of(model.step) != code_of(model.late)


@pytest.mark.parametrize("bad", ["creative_nb.core", 3, None])
def test_only_code_has_a_digest(bad):
    with pytest.raises(TypeError, match="expected a module, a class or a function"): code_of(bad)


def test_no_source_is_an_error():
    space = {"__name__": __name__}
    exec("def f(): return 1", space)
    with pytest.raises(ValueError, match="no source of .*expected code of a file or a notebook cell"):
        code_of(space["f"])
    functions = {
        "one": lambda: 1}
    with pytest.raises(ValueError, match="lambda.*stands on its own"): code_of(functions["one"])


NOTEBOOK = """
import sys
from IPython.core.interactiveshell import InteractiveShell
from creative_nb.core import code_of
shell = InteractiveShell.instance()
sys.modules["__main__"].__dict__.update(shell.user_ns)
for cell in sys.argv[1].split("%%"): shell.run_cell(cell).raise_error()
print(code_of(shell.user_ns["Model"]), code_of(shell.user_ns["Plain"]))
"""


def test_notebook_and_file_have_the_same_digest(tmp_path):
    "A class of a cell has no file; the latest definition counts, with methods or without."
    plain = "class Plain: size = {}\n"
    module = module_of(tmp_path, SOURCE + plain.format(2))
    cells = "%%".join([SOURCE.replace("x: int", "x: int, y=0"), plain.format(1), SOURCE, plain.format(2)])
    out = subprocess.run([sys.executable, "-c", NOTEBOOK, cells], capture_output=True, text=True, check=True).stdout
    assert out.split() == [code_of(module.Model), code_of(module.Plain)]


@pytest.fixture
def extension(tmp_path, monkeypatch):
    "Writes extensions of a checkout that is the working directory."
    (tmp_path / "settings.ini").touch()
    (tmp_path / "nbs" / "extensions").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(core, "loaded", [], raising=False)
    def write(name, source): (tmp_path / "nbs" / "extensions" / name).write_text(textwrap.dedent(source))
    return write


NOTE = "from creative_nb import core\ncore.loaded.append(__name__)\n"


def test_extensions_are_imported_once_in_order(extension):
    for name in ("b.py", "a.py", "_private.py", ".hidden.py", "notes.txt"): extension(name, NOTE)
    assert load_extensions() == load_extensions() == (f"{EXTENSIONS}.a", f"{EXTENSIONS}.b") == tuple(core.loaded)
    extension("c.py", f"from {EXTENSIONS}.a import core as shared\n" + NOTE)
    load_extensions()
    assert core.loaded == [f"{EXTENSIONS}.{n}" for n in "abc"]


def test_no_extensions(tmp_path, monkeypatch):
    (tmp_path / "settings.ini").touch()
    monkeypatch.chdir(tmp_path)
    assert load_extensions() == ()


def test_error_in_an_extension_names_the_file(extension):
    extension("good.py", NOTE)
    extension("wrong.py", "1 / 0")
    for _ in range(2):
        with pytest.raises(ImportError, match=r"extensions/wrong.py cannot be imported: ZeroDiv"): load_extensions()
    extension("wrong.py", "mended = True\n" + NOTE)
    load_extensions()
    assert core.loaded == [f"{EXTENSIONS}.good", f"{EXTENSIONS}.wrong"]


def test_extension_may_ask_for_extensions(extension):
    extension("a.py", "from creative_nb.core import load_extensions\nload_extensions()\n" + NOTE)
    extension("b.py", NOTE)
    load_extensions()
    assert core.loaded == [f"{EXTENSIONS}.b", f"{EXTENSIONS}.a"]


def test_configuration_without_tensors(tmp_path):
    path = tmp_path / "t.safetensors"
    save_tensors(path, {"a": torch.arange(3)}, {"hidden": [3, 2]})
    assert load_config(path) == load_tensors(path)[1] == {"hidden": [3, 2]}
    with pytest.raises(FileNotFoundError, match="no file"): load_config(tmp_path / "none")
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(ValueError, match="damaged"): load_config(path)


# Files of tensors that are not what was written

def saved(folder, name="t.safetensors"):
    path = folder / name
    save_tensors(path, {"a": torch.arange(300.), "b": torch.ones(2, dtype=torch.bfloat16)}, {"hidden": [3, 2]})
    return path


@pytest.mark.parametrize("at", [-1, -700, 150])
def test_a_changed_bit_is_noticed(tmp_path, at):
    "In the data and in the configuration."
    path = saved(tmp_path)
    content = bytearray(path.read_bytes())
    at = content.index(b"[3, 2]") + 1 if at == 150 else at
    content[at] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="damaged"): load_tensors(path)


def test_files_without_a_checksum_are_read(tmp_path):
    from safetensors.torch import save_file
    save_file({"a": torch.ones(2)}, tmp_path / "t.safetensors", metadata={"config": '{"x": 1}'})
    save_file({"a": torch.ones(2)}, tmp_path / "u.safetensors")
    assert load_tensors(tmp_path / "t.safetensors")[1] == {"x": 1} and load_tensors(tmp_path / "u.safetensors")[1] == {}


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float16, torch.bfloat16, torch.float64,
                                   torch.complex64])
@pytest.mark.parametrize("shape", [(), (0,), (2, 3)])
def test_every_kind_of_tensor_comes_back(tmp_path, dtype, shape):
    tensor = torch.ones(shape, dtype=dtype)
    save_tensors(tmp_path / "t.safetensors", {"a": tensor, "b": torch.ones(3, 4, dtype=dtype).T})
    back = load_tensors(tmp_path / "t.safetensors")[0]
    assert torch.equal(back["a"], tensor) and back["a"].dtype == dtype and back["b"].shape == (4, 3)


def test_tensors_may_share_memory(tmp_path):
    whole = torch.arange(6.).view(3, 2)
    save_tensors(tmp_path / "t.safetensors", {"all": whole, "first": whole[:1], "again": whole, "last": whole[2:]})
    back = load_tensors(tmp_path / "t.safetensors")[0]
    assert all(torch.equal(back[k], v) for k, v in (("again", whole), ("first", whole[:1]), ("last", whole[2:])))


@pytest.mark.parametrize("content, found", [
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 4000000\n", "Git LFS.*git lfs pull"),
    (b"PK\x03\x04and more", "torch.save"), (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "torch.save"),
    (b"\x80\x04\x95\x10", "pickle"), (b"\x89HDF\r\n\x1a\n", "HDF5"), (b"\n<!DOCTYPE html>", "web page"),
    (b"", "damaged"), (b"\x01", "damaged"), (b"# Read me", "damaged")])
def test_other_files_are_told_and_never_to_be_deleted(tmp_path, content, found):
    path = tmp_path / "vae.safetensors"
    path.write_bytes(content)
    for load in (load_tensors, load_config):
        with pytest.raises(ValueError, match=found) as e: load(path)
        assert "delete" not in str(e.value) and str(path) in str(e.value)


def test_only_what_is_made_again_may_be_deleted(tmp_path):
    path = tmp_path / "artifacts" / "vae.safetensors"
    path.parent.mkdir()
    path.write_bytes(b"half")
    with pytest.raises(ValueError, match="delete it and make it again"): load_tensors(path)


def test_a_config_that_json_cannot_hold(tmp_path):
    for config in ({"a": torch.ones(2)}, {"a": {1, 2}}, {"a": 1, 2: 3}):
        with pytest.raises(ValueError, match="config=.*JSON"): save_tensors(tmp_path / "t", {}, config)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_artifact_is_made_again(tmp_path, capsys):
    made, path = [], tmp_path / "a" / "x.safetensors"
    def make(path):
        made.append(1)
        save_tensors(path, {"a": torch.zeros(9)})
    for damage in (None, lambda b: b[:20], lambda b: b[:-1] + b"\1", lambda b: b""):
        if damage: path.write_bytes(damage(path.read_bytes()))
        core.artifact(path, make)
        assert load_tensors(path)[0]["a"].sum() == 0
    assert len(made) == 4 and capsys.readouterr().err.count("is damaged and is made again") == 3
    assert [p.name for p in path.parent.iterdir()] == ["x.safetensors"]


def test_an_artifact_of_another_kind_is_left_as_it_is(tmp_path):
    (tmp_path / "labels.sqlite").write_bytes(b"whatever")
    core.artifact(tmp_path / "labels.sqlite", lambda path: path.write_bytes(b""))
    assert (tmp_path / "labels.sqlite").read_bytes() == b"whatever"


WAIT = """
import sys, time
from pathlib import Path
from creative_nb.core import artifact, write_text
def make(path):
    Path("started").touch()
    time.sleep(float(sys.argv[1]))
    write_text(path, sys.argv[2])
print(artifact("result.txt", make).read_text())
"""


def test_a_second_process_says_that_it_waits(tmp_path):
    start = lambda *a: subprocess.Popen([sys.executable, "-c", WAIT, *a], cwd=tmp_path, text=True,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    first = start("8", "one")
    while not (tmp_path / "started").exists(): assert first.poll() is None
    second = start("0", "two")
    out, said = second.communicate(timeout=120)
    assert out == "one\n" == first.communicate()[0]
    assert "waiting for another process" in said and "result.txt" in said
    assert sorted(p.name for p in tmp_path.iterdir()) == ["result.txt", "started"]


def test_an_existing_artifact_needs_no_lock(tmp_path, monkeypatch):
    "As in a folder that one may read but not write."
    (tmp_path / "x.txt").write_text("there")
    monkeypatch.setattr(common, "FileLock", None)
    assert core.artifact(tmp_path / "x.txt", None.__class__).read_text() == "there"


# A disk that is full, or cannot be written

@pytest.mark.parametrize("error, names", [
    (OSError(28, "No space left on device"), True), (PermissionError(13, "Permission denied", "TEMPORARY"), True),
    (FileNotFoundError(2, "No such file", "/else/where"), False), (OSError("disk full"), False)])
def test_an_error_of_the_disk_names_the_file(tmp_path, error, names):
    with pytest.raises(OSError) as e:
        with core.atomic_path(tmp_path / "t.csv") as temporary:
            if error.filename == "TEMPORARY": error.filename = str(temporary)
            raise error
    assert (e.value.filename == str(tmp_path / "t.csv")) is names and list(tmp_path.iterdir()) == []
    assert type(e.value) is type(error)


FULL = """
import resource, signal, sys, torch
from creative_nb.core import save_tensors, write_text
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
try:
    if sys.argv[1] == "tensors": save_tensors("t.safetensors", {"a": torch.ones(9000)})
    else: write_text("t.txt", 9000 * "x")
except OSError as e: print(e)
"""


@pytest.mark.parametrize("what", ["tensors", "text"])
def test_a_full_disk_names_the_file_and_leaves_nothing(tmp_path, what):
    done = subprocess.run([sys.executable, "-c", FULL, what], cwd=tmp_path, capture_output=True, text=True)
    assert "t.safetensors" in done.stdout or "t.txt" in done.stdout, done.stderr
    assert list(tmp_path.iterdir()) == []


# Inside another project

@pytest.mark.parametrize("text", ["[DEFAULT]\nlib_name = theirs\n", "[DEFAULT]\nname = x\n", "[tool]\nx = 1\n",
                                  "no section = 1\n", "lib_name"])
def test_a_project_of_ones_own_is_no_checkout(tmp_path, monkeypatch, text):
    (tmp_path / "nbs").mkdir()
    (tmp_path / "settings.ini").write_text(text)
    monkeypatch.chdir(tmp_path / "nbs")
    assert core.repo_root() == Path(core.__file__).resolve().parents[1]


def test_a_checkout_inside_another_project_is_found(tmp_path, monkeypatch):
    (tmp_path / "settings.ini").write_text("[DEFAULT]\nlib_name = theirs\n")
    (tmp_path / "copy" / "nbs").mkdir(parents=True)
    (tmp_path / "copy" / "settings.ini").write_text("[DEFAULT]\nlib_name = creative_nb\ntitle = %(lib_name)s\n")
    monkeypatch.chdir(tmp_path / "copy" / "nbs")
    assert core.repo_root() == tmp_path / "copy"


@pytest.mark.parametrize("call, message", [
    (lambda: core.rng(-1), "seed=-1: expected a whole number"), (lambda: core.rng(0, 1), "purpose=.*expected"),
    (lambda: core.standard_normal(3, 3, 0), "width=3: expected"),
    (lambda: core.standard_normal(2.5, (3,), 0), "n=2.5: expected"),
    (lambda: core.pick_device("gpu"), "device='gpu': expected"), (lambda: core.pick_device(None), "device=None"),
    (lambda: save_tensors("t", {"a": [1]}), "tensors=.*expected"), (lambda: save_tensors("", {}), "path=''"),
    (lambda: load_tensors("."), "path='.'"), (lambda: list(core.batches(3, 0)), "size=0"),
    (lambda: core.artifact("x", "y"), "make='y': expected a function"), (lambda: core.bare_code("1 +"), "source='1"),
    (lambda: core.from_root("~nobody_of_this_name/x"), "path=~nobody")])
def test_bad_arguments_are_named(call, message):
    with pytest.raises((ValueError, TypeError), match=message): call()
