"""From the arrays of another program to an embedding store."""
