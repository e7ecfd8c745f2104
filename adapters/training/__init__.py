"""Models trained further after pruning, with their zeros held."""
