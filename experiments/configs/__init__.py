"""Configurations for `experiments.train`: each has get_config(placement)."""
