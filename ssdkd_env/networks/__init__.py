"""Teachers, students and generators, built by name or by import path."""

from ssdkd_env.networks.registry import NETWORKS, build_network

__all__ = ["NETWORKS", "build_network"]
