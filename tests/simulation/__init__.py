"""The simulator: the real engine, links and SDK on virtual time, under seeded faults."""
