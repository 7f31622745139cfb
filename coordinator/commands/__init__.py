"""The command ``pincex``: a client of the API like any other, and the way to start its servers."""
