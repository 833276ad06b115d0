"""Saved models: found, loaded, asked."""
