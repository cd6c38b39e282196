"""Pure functions and small frozen types: episodes, networks, adaptation, patterns, cost."""
