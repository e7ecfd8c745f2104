"""The kinds of runs: weights zeroed, and units, experts or whole blocks removed."""
