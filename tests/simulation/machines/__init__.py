"""The pure machines under a seeded scheduler, and every interleaving of a small case."""
