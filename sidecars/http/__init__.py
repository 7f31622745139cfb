"""The sidecar for services in other languages: the resource protocol on one side, three URLs on the other."""
