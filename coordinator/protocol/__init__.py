"""The protocol's core: deterministic, without I/O."""
