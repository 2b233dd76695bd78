from kerasmlp.training.embeddings import train as train
