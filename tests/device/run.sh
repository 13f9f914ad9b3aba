#!/usr/bin/env bash
# The whole of a scale on another machine, with a GPU for instance, and its tables compared with ours.
#
#   here, with a network:   tests/device/run.sh pack FOLDER     wheels for CPython 3.12 on Linux x86-64, without PyTorch and what it brings;
#                                                               data/raw and the checkout as they are in git
#   there, without one:     tests/device/run.sh there FOLDER [SCALE [PAPER ...]]   installs into FOLDER/site, runs, leaves FOLDER/result.tar.gz
#   here again:             tests/device/run.sh compare FOLDER  unpacks result.tar.gz, writes FOLDER/comparison.csv, prints it
#   here, to try it:        tests/device/run.sh try FOLDER [SCALE [PAPER ...]]   as `there`, with the packages of this machine
#
# There needed: Python 3.12 with PyTorch 2.11 or newer and torchvision. SCALE is paper unless told, PAPER all of them.
# PYTHON chooses the interpreter, NO_DATA=1 leaves data/raw out, as for scale smoke.
set -euo pipefail
command=${1:?pack, there, compare or try} folder=$(mkdir -p "${2:?a folder}" && realpath "$2") root=$(cd "$(dirname "$0")/../.." && pwd)
shift 2
python=${PYTHON:-python3}

# What the notebooks need beyond PyTorch: the closure of creative_nb[paper,diversity,diffusion] without what torch brings.
needed() {
  "$python" - <<'PY'
import re
from importlib.metadata import PackageNotFoundError, requires
from packaging.requirements import Requirement

def below(name, extras, seen):
    try: lines = requires(name) or []
    except PackageNotFoundError: return
    for wanted in map(Requirement, lines):
        if wanted.marker and not any(wanted.marker.evaluate({"extra": e}) for e in (*extras, "")): continue
        key = (re.sub("[-_.]+", "-", wanted.name).lower(), frozenset(wanted.extras))
        if key not in seen: seen.add(key); below(wanted.name, wanted.extras, seen)

all_of_it, torch = set(), {("torch", frozenset()), ("torchvision", frozenset())}
below("creative_nb", ("paper", "diversity", "diffusion"), all_of_it)
left_out = set(torch)
for name in ("torch", "torchvision"): below(name, (), left_out)
common = {"numpy", "pillow"}  # there in any version; ours fit each other
names = {n for n, _ in all_of_it} - ({n for n, _ in left_out} - common) - {"creative-nb"}
print("\n".join(sorted(names)))
PY
}

pack() {
  needed > "$folder/needed.txt"
  [ -z "${LOCK_OFF:-}" ] && grep -iE "^($(paste -sd'|' "$folder/needed.txt" | sed 's/-/[-_.]/g'))==" "$root/requirements.lock" > "$folder/wheels.txt"
  platforms=(); for p in 2_39 2_34 2_28 2_27 2_24 2_17 2014 2_12 2_5; do platforms+=(--platform "manylinux_${p}_x86_64"); done
  "$python" -m pip download -q --no-deps --only-binary=:all: --python-version 3.12 --implementation cp --abi cp312 --abi abi3 --abi none \
    "${platforms[@]}" --platform manylinux2014_x86_64 --platform any -d "$folder/wheels" -r "$folder/wheels.txt"
  git -C "$root" archive --format=tar.gz -o "$folder/checkout.tar.gz" HEAD
  [ -n "${NO_DATA:-}" ] || tar chzf "$folder/data.tar.gz" -C "$root" data/raw
  cp "$0" "$folder/run.sh"
  du -sh "$folder"
}

unpack() {
  rm -rf "$folder/checkout"; mkdir -p "$folder/checkout"
  if [ -f "$folder/checkout.tar.gz" ]; then tar xzf "$folder/checkout.tar.gz" -C "$folder/checkout"
  else git -C "$root" ls-files -z | tar c -C "$root" --null -T - | tar x -C "$folder/checkout"; fi
  [ ! -f "$folder/data.tar.gz" ] || tar xzf "$folder/data.tar.gz" -C "$folder/checkout"
}

run() {
  local scale=${1:-paper} code=0; shift || true
  cd "$folder/checkout"
  export PYTHONPATH=$folder/checkout${PYTHONPATH:+:$PYTHONPATH} CREATIVE_NB_PROGRESS=0
  "$python" -c "import torch; print(torch.__version__, torch.cuda.get_device_name() if torch.cuda.is_available() else 'no GPU')" | tee "$folder/machine.txt"
  begin=$(date +%s)
  "$python" -m creative_nb.pipeline run "$scale" --paper "$*" > "$folder/log.txt" 2>&1 || code=$?
  echo "$scale ${*:-all papers}: $(($(date +%s) - begin)) seconds, exit $code" | tee -a "$folder/machine.txt"
  find "runs/$scale" -path '*/tables/*' \( -name '*.csv' -o -name '*.json' \) | tar czf "$folder/result.tar.gz" -T - -C "$folder" machine.txt log.txt
  return $code
}

there() {
  unpack
  "$python" -m pip install -q --no-index --no-deps --no-compile --target "$folder/site" "$folder"/wheels/*.whl
  export PYTHONPATH=$folder/site
  run "$@"
}

try() { unpack; run "$@"; }

compare() {
  rm -rf "$folder/result"; mkdir "$folder/result"
  tar xzf "$folder/result.tar.gz" -C "$folder/result"
  cat "$folder/result/machine.txt"
  cd "$root"
  scale=$(ls "$folder/result/runs"); [ "$scale" = paper ] && ours=data/measured || ours=${OURS:-runs/$scale}
  PYTHONPATH=$root "$python" -m creative_nb.machines "$ours" "$folder/result/runs/$scale" --csv "$folder/comparison.csv"
}

case $command in pack|there|try|compare) $command "$@" ;; *) echo "usage: run.sh pack|there|compare|try FOLDER" >&2; exit 2 ;; esac
