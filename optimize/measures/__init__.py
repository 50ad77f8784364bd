"""What retrieval is worth."""
