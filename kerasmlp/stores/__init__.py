"""Files that hold what models learn from."""
