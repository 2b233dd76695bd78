"""The LayerOut paper's experiments: their plan, a training, the runs of a plan, the table."""
