"""What result lines say: statistics over seeds and training runs, traces, tables."""
