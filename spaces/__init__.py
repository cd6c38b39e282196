"""Spaces: what each method searches, as plain data with reasons."""
