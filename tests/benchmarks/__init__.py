"""The product against the machine's limits: ``python -m tests.benchmarks``."""
