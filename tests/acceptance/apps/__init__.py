"""Applications that the acceptance tests serve."""
