"""What a participant changes: resources that keep the protocol's promises."""
