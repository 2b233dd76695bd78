"""Rows that are nearly the same, within a store and across several."""
