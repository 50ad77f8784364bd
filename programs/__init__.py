"""What happens to one question: DSPy modules over a Chroma store."""
