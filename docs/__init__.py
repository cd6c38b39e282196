"""Guides for people, and the commands that write the parts of them that follow from the code."""
