"""HDF5 files of embeddings and of images, read in one go."""
