# make help lists the commands. Each one sets up .venv first, if it is missing or the requirements have changed.
SCALE ?= quick
PAPER ?=
SETTINGS ?= $(DATASETS)
DATASETS ?=
ONLY ?=
ROOT =
SIZE =
PYTHON ?= python3
VENV ?= .venv
LOCKED ?=
KILLS ?= 100
SEED ?= 0
SMOKE ?=
CLUSTER ?=

# Paths may have spaces: quoted for the shell, with a backslash for make.
empty :=
BIN := '$(VENV)/bin'
INSTALLED := $(subst $(empty) ,\ ,$(VENV))/.creative_nb
PIPELINE := $(BIN)/python -m creative_nb.pipeline

.PHONY: help paper where annotate test test-faults test-cluster lab release archive readme site lock install
.DEFAULT_GOAL := help

help:
	@echo 'make paper                              all papers on the embedded digits set (scale quick), with a summary at the end'
	@echo 'make paper PAPER=das2020 SCALE=paper    one paper at its own settings; the same command resumes an interrupted run'
	@echo 'make paper SETTINGS=mnist               one setting, or any data set; ONLY=03_metric_sweep for one notebook and what it needs'
	@echo 'make paper SETTINGS=folder ROOT=pictures SIZE=28x28   your own images, one folder a class, resized to HEIGHTxWIDTH'
	@echo 'make paper PAPER=das2020 CLUSTER=slurm  the notebooks as jobs of a cluster, by profiles/slurm: see nbs/10e_cluster.ipynb'
	@echo 'make where PAPER=das2020                where each printed table and figure is made again; ITEM="Table 5 low-active 5 recon_distance"'
	@echo 'make annotate DATASET=digits            the human study in a browser, on the images of a run; PAPER and SCALE as above'
	@echo 'make test                               everything CI runs'
	@echo 'make test-faults                        what survives kills, full disks and damage; KILLS=100 SEED=0'
	@echo 'make test-cluster                       notebooks as jobs of a SLURM of one node, set up and taken down by the test'
	@echo 'make lab                                JupyterLab on the notebooks'
	@echo 'make release PAPER=das2020              copy a finished run of scale paper into data/, figures/ and nbs/'
	@echo 'make archive                            the commit as a zip to deposit, with checksums, a list of results and metadata'
	@echo 'make readme                             make README.md from nbs/index.ipynb'
	@echo 'make site                               the site: notebooks with search, papers, chapters and signatures, in _site/html'
	@echo 'make lock                               write the versions installed here to requirements.lock; LOCKED=1 installs those'
	@echo
	@echo 'PYTHON=python3.12 chooses the Python (3.11 or newer) that makes .venv; VENV="$$CONDA_PREFIX" uses a conda environment instead.'

paper: $(INSTALLED)
	@$(PIPELINE) run "$(SCALE)" --paper "$(PAPER)" --settings "$(SETTINGS)" --only "$(ONLY)" --root "$(ROOT)" --size "$(SIZE)"$(if $(CLUSTER), --profile "profiles/$(CLUSTER)")

ITEM ?=
where: $(INSTALLED)
	@$(PIPELINE) where $(PAPER) $(ITEM)

# A study is a folder of its own, private, with images of its own: see nbs/10c_study.ipynb.
DATASET ?= digits
PORT ?= 8866
STUDIED := $(or $(PAPER),das2020)
STUDY := runs/$(SCALE)/$(STUDIED)/$(DATASET)/annotations
annotate: $(INSTALLED)
	@$(BIN)/python -m creative_nb.study "$(STUDIED)" "$(DATASET)" "$(SCALE)" "$(STUDY)"
	@chmod 700 $(STUDY)
	@$(BIN)/python -m creative_nb.annotation_tool serve $(STUDY)/pool.safetensors $(STUDY)/labels.sqlite --create --open --port $(PORT) --token-file $(STUDY)/token

release: SCALE = paper
release: $(INSTALLED)
	@$(PIPELINE) release "$(SCALE)" --paper "$(PAPER)" --settings "$(SETTINGS)"

readme: $(INSTALLED)
	@$(PIPELINE) readme

# Minutes, as root, with Debian's slurmctld, slurmd, slurm-client and munge; not part of CI.
test-cluster: $(INSTALLED)
	CLUSTER=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -v -s tests/cluster

archive: $(INSTALLED)
	@$(BIN)/python -m creative_nb.archive

# Notebooks are shown with their committed outputs; nothing is executed.
site: $(INSTALLED)
	@OMP_NUM_THREADS=1 $(BIN)/python -m creative_nb.site

lab: $(INSTALLED)
	@$(BIN)/jupyter lab --notebook-dir nbs

# Style; the cells of the chapters; the experiment notebooks at scale smoke, of all papers or those of SMOKE; the tests.
test: $(INSTALLED)
	$(BIN)/ruff check
	OMP_NUM_THREADS=1 $(BIN)/nbdev_test --path nbs --skip_folder_re "$$($(BIN)/python -c 'from creative_nb.paper import paper_names; print("^([_.]|" + "|".join(paper_names()) + ")")')" --n_workers 2
	$(PIPELINE) run smoke --paper "$(SMOKE)" --forceall
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile

# Long: kills runs at random moments, KILLS times, drawn by SEED; not part of CI.
test-faults: $(INSTALLED)
	KILLS=$(KILLS) SEED=$(SEED) OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/faults

# Without the local part of a version: 2.11.0+cpu and 2.11.0 are one release.
lock: $(INSTALLED)
	@$(BIN)/python -m pip freeze --exclude-editable | sed 's/+[a-z0-9.]*$$//' > requirements.lock

install: $(INSTALLED)

$(INSTALLED): settings.ini setup.py pyproject.toml
	@[ -x $(BIN)/pip ] || '$(PYTHON)' -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: Python 3.11 or newer is needed, and $(PYTHON) is not: try make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@[ -x $(BIN)/pip ] || '$(PYTHON)' -m venv '$(VENV)'
	@echo 'Installing into $(VENV): a few minutes the first time ...'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]' $(if $(LOCKED),-c requirements.lock)
	@touch '$@'
