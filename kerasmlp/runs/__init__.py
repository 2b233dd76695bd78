"""What a training leaves behind, and answers from it."""
