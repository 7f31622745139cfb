"""The decision log: its seam, its two stores, and group commit in front of it."""
