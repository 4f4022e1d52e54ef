"""Measuring speed, growth and memory: of the engine, of many environments, and beside public code."""
