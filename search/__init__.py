"""Search: who runs, where, and what becomes of it."""
