"""Other companies' systems, played by processes of ours for development: they keep books, and misbehave when told."""
