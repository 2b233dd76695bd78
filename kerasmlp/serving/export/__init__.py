"""From a run to the formats that servers and phones load."""
