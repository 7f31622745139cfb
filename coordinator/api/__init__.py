"""The doors: the wire to domain calls, and nothing else."""
