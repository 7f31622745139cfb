"""Defects made on purpose, each in a copy of the tree, and what notices them."""
