"""Training an agent: the loop, its checkpoints, validation, and what is logged."""
