"""Exported programs at work."""
