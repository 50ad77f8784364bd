"""What happened to each question, and what it comes to in numbers."""
