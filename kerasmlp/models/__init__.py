"""Functions that return functional `keras.Model`s, and their presets."""
