"""Readers of arrays and tables as other programs write them, one per kind of file."""
