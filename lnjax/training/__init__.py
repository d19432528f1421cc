"""Training: configuration, the pure step, its wrappers, the loop, checkpoints."""
