"""Demonstrations: a trading day under faults, and a coordinator killed in mid-commit. Clients of the API, no more."""
