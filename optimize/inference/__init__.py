"""What numbers show, and what they do not."""
