"""Data sets: documents, questions with evidence, splits."""
