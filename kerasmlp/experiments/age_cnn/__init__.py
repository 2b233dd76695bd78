"""The UTKFace CNN: its recipe, a training, the check that it can overfit, the search, pictures."""
