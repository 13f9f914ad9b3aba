# One rule for each notebook and setting. Which ones, in which order and with which parameters: creative_nb/pipeline.py and
# the paper.yaml of each paper. Usage: make paper, or python -m creative_nb.pipeline run SCALE [--paper NAME] [options of snakemake]
import json, sys

sys.path.insert(0, str(workflow.basedir))
from creative_nb import pipeline
from creative_nb.execute import code_hash
from creative_nb.watch import note_planned

selection = config.get("run", {})
selection = json.loads(selection) if isinstance(selection, str) else selection
jobs = pipeline.plan(**{"scale": "quick"} | selection)  # an unknown scale, paper, setting or parameter stops here

onstart:
    note_planned(selection.get("scale", "quick"), (f for job in workflow.dag.needrun_jobs() for f in job.output))

rule all:
    default_target: True
    input: [job.output for job in jobs]

for job in jobs:
    rule:
        name: job.name
        input: pipeline.inputs(job)
        output: job.output
        params:
            source=pipeline.from_here(job.source),
            code=code_hash(job.source),
            setting=pipeline.decides(job),
            parameters=json.dumps(pipeline.parameters(job)),
        threads: pipeline.threads(job, workflow.cores)
        resources: gpu=pipeline.gpus()
        shell: "exec {sys.executable:q} -m creative_nb.pipeline execute {params.source:q} {output:q} --parameters {params.parameters:q}"
