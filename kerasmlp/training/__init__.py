"""From rows to a run."""
