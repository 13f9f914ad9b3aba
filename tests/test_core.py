"Digests of code, extensions, and files of tensors."
import importlib.util
import subprocess
import sys
import textwrap

import pytest
import torch

from creative_nb import core
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
        other = getattr(core, name)
        monkeypatch.setattr(core, "source_of", lambda o, other=other: original(o) + "x = 1\n" * (o is other))
        assert (code_of(model) == before) is same
    monkeypatch.setattr(core, "source_of", original)
    assert code_of(model) == before


def test_modules_are_followed_by_attribute(tmp_path, monkeypatch):
    use = module_of(tmp_path, "from creative_nb import core\ndef f(n): return core.standard_normal(n, (2,), 0)").f
    before, original = code_of(use), source_of
    monkeypatch.setattr(core, "source_of", lambda o: original(o) + "x = 1\n" * (o is core.rng))
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
