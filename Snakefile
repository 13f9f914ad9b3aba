# One rule a notebook. Which notebooks, in which order and with which parameters: creative_nb/pipeline.py and config/.
# Usage: make paper, or python -m creative_nb.pipeline run SCALE --datasets NAMES [options of snakemake]
import json, sys

sys.path.insert(0, str(workflow.basedir))
from creative_nb import pipeline

scale = config.get("scale", "quick")
datasets = pipeline.check_datasets(scale, config.get("datasets"))
targets = pipeline.plan(scale, datasets)  # an unknown scale, data set or parameter stops here

def inputs_of(notebook):
    return lambda wildcards: pipeline.inputs(notebook, wildcards.get("dataset", datasets[0]), scale, datasets)

def parameters_of(notebook):
    return lambda wildcards: json.dumps(pipeline.parameters(scale, notebook, wildcards.get("dataset", datasets[0]), datasets))

rule all:
    default_target: True
    input: [t for ts in targets.values() for t in ts]

for notebook in targets:
    rule:
        name: notebook.split("/")[-1][3:]
        input: inputs_of(notebook)
        output: pipeline.executed(scale, notebook, "{dataset}")
        params:
            source=f"nbs/{notebook}.ipynb",
            code=pipeline.code_hash(pipeline.source(notebook)),
            parameters=parameters_of(notebook),
        threads: workflow.cores
        resources: gpu=1
        shell: "{sys.executable:q} -m creative_nb.pipeline execute {params.source:q} {output:q} --parameters {params.parameters:q}"
