"""Who drives the sampling: samplers, learning algorithms and what they log."""
