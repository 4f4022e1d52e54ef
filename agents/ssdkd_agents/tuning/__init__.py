"""Hyper-parameters of Stable-Baselines3's algorithms, tuned by Optuna."""
