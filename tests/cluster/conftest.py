"Minutes, and a SLURM of one node: only `make test-cluster` collects it, on a machine that has the programs."
import os

if "CLUSTER" not in os.environ: collect_ignore_glob = ["test_*.py"]
