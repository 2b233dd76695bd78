"""Search by Hyperband: its space and plan, the oracle, the trials, the processes that run them."""
