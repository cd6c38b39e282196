"""Benchmarks: one command each, results as JSON under ``results/``."""
