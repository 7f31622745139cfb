"""The bookkeeper: a double-entry ledger."""
