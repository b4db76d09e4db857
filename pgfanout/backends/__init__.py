"""What a hub can stand on; each backend imports its driver, and nothing else does."""
