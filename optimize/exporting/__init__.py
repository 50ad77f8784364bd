"""What is taken away from a study."""
