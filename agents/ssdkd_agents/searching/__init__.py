"""Searching constant plans: what a trained agent has to beat."""
