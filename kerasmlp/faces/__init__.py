"""From photos to embeddings of faces."""
