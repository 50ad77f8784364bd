"""Where the next calls go, and which pipeline is chosen."""
