"""Locks on keys: who holds what, who waits, and in which order. They save retries; they guard no money."""
