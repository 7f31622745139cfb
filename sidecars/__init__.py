"""Participants that ship with the system, each in a process of its own."""
