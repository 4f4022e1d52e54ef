"""Measuring speed, growth and memory, and what plans and observations are worth: for the results, not for users.

It stands beside the commands that use it and outside the packages that are installed.
"""
