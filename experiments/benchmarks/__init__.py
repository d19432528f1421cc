"""Speed and memory of the training step."""
