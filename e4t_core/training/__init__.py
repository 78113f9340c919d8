"""The plain training loop and its checkpoints."""
