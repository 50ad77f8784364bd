"""Data that others made, brought into our form."""
