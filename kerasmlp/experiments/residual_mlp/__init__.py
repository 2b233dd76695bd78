"""The paper's experiment on two stores: pre-train on one, cross-validate on the other, compare."""
