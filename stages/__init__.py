"""The six stages of dvc.yaml, one module each; `python -m stages.NAME` loads this file first."""

from lab import stage

# Before a stage imports its code, so that code edited while it runs is noticed.
stage.note_inputs()
