"""Measuring speed, growth and memory, and what plans and observations are worth."""
