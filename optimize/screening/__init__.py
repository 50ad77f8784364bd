"""Retrieval scored without a language model."""
