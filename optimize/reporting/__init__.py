"""What a study leaves for people."""
