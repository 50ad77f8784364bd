"""What a study keeps while it works, and how it tells of it."""
