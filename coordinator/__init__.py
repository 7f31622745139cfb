"""The coordinator: decides transactions, remembers what it decided, and sees every one to its end."""
