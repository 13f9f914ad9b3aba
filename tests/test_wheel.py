"""The package as `pip install creative_nb` brings it: built, unpacked outside a checkout, with what it declares to need
and nothing else. PyTorch and the rest are not installed again: they are seen, and what the core needs not is hidden."""
import importlib.metadata, json, os, re, shutil, subprocess, sys, sysconfig, zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ("creative_nb", "setup.py", "settings.ini", "README.md", "LICENSE", "pyproject.toml", "MANIFEST.in")
BY_EXTRA = {  # modules that say at once which extra they need; all others are imported without one
    "study": {"annotation_tool", "annotators", "axes", "creativity", "judgement", "people", "planning", "pool_size"},
    "paper": {"release", "site"},
    "diversity": {"search"},
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    "The wheel, built offline as pip builds it."
    source, made = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("made")
    for name in SOURCES: (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, source / name)
    for pattern in ("data/published/*/*.csv", "nbs/*/paper.yaml", "data/checkpoints/SHA256SUMS"):
        for path in ROOT.glob(pattern):
            (source / path.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, source / path.relative_to(ROOT))
    subprocess.run([sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-index", "--no-build-isolation",
                    "-w", made, source], check=True, capture_output=True)
    return next(made.glob("creative_nb-*.whl"))


def needs(requirements: list[str], seen: dict) -> dict:
    "The distributions that requirements bring, extras of ours aside."
    for line in requirements:
        wanted = Requirement(line)
        extras = wanted.extras or {""}
        if wanted.marker and not any(wanted.marker.evaluate({"extra": e}) for e in extras): continue
        name = re.sub("[-_.]+", "-", wanted.name).lower()
        if name in seen: continue
        try: below = importlib.metadata.requires(wanted.name) or []
        except importlib.metadata.PackageNotFoundError: continue
        seen[name] = wanted.name
        needs([r for r in below if "extra ==" not in r], seen)
    return seen


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    "Runs code in an environment that holds the wheel, and of the rest what the core needs."
    folder = tmp_path_factory.mktemp("empty")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "env"], check=True)
    packages = next((folder / "env").rglob("site-packages"))
    with zipfile.ZipFile(wheel) as z: z.extractall(packages)
    (packages / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    metadata = importlib.metadata.PathDistribution(next(packages.glob("creative_nb-*.dist-info")))
    core = needs([r for r in metadata.requires if "extra ==" not in r], {})
    hidden = sorted(top for top, names in importlib.metadata.packages_distributions().items()
                    if not {re.sub("[-_.]+", "-", n).lower() for n in names} & {*core, "creative-nb", "pip"})
    assert {"statsmodels", "matplotlib", "tornado", "torchvision", "papermill", "snakemake"} <= set(hidden)
    hide = f"""
import sys
class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {hidden!r}: raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Hide())
"""
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "CREATIVE_NB_CHECKPOINTS")}

    def run(code: str, hide=hide, **variables) -> str:
        done = subprocess.run([folder / "env/bin/python", "-c", hide + code], cwd=folder, capture_output=True,
                              text=True, env=environment | variables)
        assert done.returncode == 0, done.stderr[-4000:]
        return done.stdout
    return run


def test_the_wheel_has_what_is_read_outside_a_checkout(wheel):
    with zipfile.ZipFile(wheel) as z: names = z.namelist()
    ours = {n.split("/", 1)[1] for n in names if n.startswith("creative_nb/")}
    assert {"page.css", "page.js", "shipped/data/published/das2020/table5_mnist_metric_sweep.csv",
            "shipped/nbs/das2020/paper.yaml", "shipped/data/checkpoints/SHA256SUMS"} <= ours
    assert not [n for n in ours if re.match(r"das20|li2020|berns|atlas", n)], "code of notebooks"
    assert wheel.stat().st_size < 1e6


def test_decoding_novelty_and_printed_tables_need_the_core_alone(installed):
    assert installed("""
import torch
from creative_nb.decode import CreativeDecoder, LowActive
from creative_nb.novelty import Novelty
from creative_nb.published import printed_table
torch.manual_seed(0)
generator = torch.nn.Sequential(torch.nn.Linear(8, 100), torch.nn.ReLU(), torch.nn.Linear(100, 64), torch.nn.Sigmoid(),
                                torch.nn.Unflatten(1, (1, 8, 8)))
z = torch.randn(500, 8)
decoder = CreativeDecoder(generator, layer="1").fit(z)
images = decoder.sample(16, LowActive(n=5), seed=0)
scores = Novelty().fit(generator(z).detach()).score(images, ["input_5nn"])
table = printed_table("das2020", "table5_mnist_metric_sweep")
print(tuple(images.shape), bool((scores["input_5nn"] > 0).all()), "low-active" in set(table.method))
""") == "(16, 1, 8, 8) True True\n"


def test_what_needs_an_extra_names_it(installed):
    code = """
import importlib, json, pkgutil, creative_nb
found = {}
for name in sorted(m.name for m in pkgutil.iter_modules(creative_nb.__path__)):
    try: importlib.import_module(f"creative_nb.{name}")
    except ImportError as e: found[name] = str(e)
from creative_nb.data import load_data
load_data("digits")
try: load_data("mnist")
except ImportError as e: found["mnist"] = str(e)
print(json.dumps(found))"""
    found = json.loads(installed(code))
    named = {extra: {m for m, text in found.items() if text.endswith(f"pip install 'creative_nb[{extra}]'")}
             for extra in BY_EXTRA}
    assert found.pop("mnist").startswith("torchvision is not installed: pip install 'creative_nb[paper]'")
    named["paper"].discard("mnist")
    assert named == BY_EXTRA and set().union(*named.values()) == set(found)


def test_checkpoints_are_copied_and_checked(installed, tmp_path):
    shutil.copy(ROOT / "data/checkpoints/digits_diffusion.safetensors", tmp_path / "mnist_vae.safetensors")
    shutil.copy(ROOT / "data/checkpoints/mnist_classifier.safetensors", tmp_path)
    code = """
from creative_nb.models import pretrained
try: pretrained("mnist")
except (FileNotFoundError, ValueError) as e: print(e)
"""
    assert "CREATIVE_NB_CHECKPOINTS" in installed(code)
    assert "the published file's" in installed(code, CREATIVE_NB_CHECKPOINTS=str(tmp_path))
    assert installed(f"""
from creative_nb.models import pretrained
print(type(pretrained("mnist", "classifier", folder={str(tmp_path)!r})).__name__)""") == "Classifier\n"


def test_heavy_packages_wait_until_they_are_needed(installed):
    "scikit-learn, matplotlib and friends are not imported with the library: it takes a second beyond PyTorch's own."
    heavy = ("sklearn", "matplotlib", "seaborn", "statsmodels", "torchvision", "papermill", "snakemake", "faiss")
    assert installed(f"""
import sys, creative_nb.decode, creative_nb.novelty
print([name for name in {heavy} if name in sys.modules])""", hide="") == "[]\n"


def test_the_committed_checksums_are_those_of_the_checkpoints():
    from hashlib import sha256
    folder = ROOT / "data/checkpoints"
    sums = [f"{sha256(p.read_bytes()).hexdigest()}  {p.name}" for p in sorted(folder.glob("*.safetensors"))]
    assert (folder / "SHA256SUMS").read_text().splitlines() == sums, "run creative_nb.release.renew_sums()"
