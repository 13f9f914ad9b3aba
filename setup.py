"Package metadata, read from settings.ini: the one place where name, version and requirements are written."
import shutil
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
settings = ConfigParser(delimiters=["="])
settings.read(ROOT / "settings.ini", encoding="utf-8")
cfg = settings["DEFAULT"]
PAPERS = sorted(p.parent.name for p in ROOT.glob("nbs/*/paper.yaml"))  # their code belongs to their notebooks
EXTRAS = {key.removesuffix("_requirements"): cfg[key].split() for key in cfg if key.endswith("_requirements")}
SHIPPED = ("data/published/*/*.csv", "nbs/*/paper.yaml", "data/checkpoints/SHA256SUMS")  # read outside a checkout


class BuildWithTables(build_py):
    "Puts what the library reads besides its code into the wheel: `creative_nb.core.shipped` finds it there."
    def run(self):
        super().run()
        if self.editable_mode: return
        for path in sorted(p for pattern in SHIPPED for p in ROOT.glob(pattern)):
            to = Path(self.build_lib) / cfg["lib_name"] / "shipped" / path.relative_to(ROOT)
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, to)


setup(
    name=cfg["lib_name"],
    version=cfg["version"],
    description=cfg["description"],
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author=cfg["author"],
    url=cfg["git_url"],
    license="Apache-2.0",
    cmdclass={"build_py": BuildWithTables},
    packages=find_packages(include=[cfg["lib_name"], cfg["lib_name"] + ".*"],
                           exclude=[f"{cfg['lib_name']}.{name}" for name in PAPERS]),
    package_data={cfg["lib_name"]: ["*.css", "*.js"]},  # the annotation page
    python_requires=">=" + cfg["min_python"],
    install_requires=cfg["requirements"].split(),
    extras_require=EXTRAS,
)
