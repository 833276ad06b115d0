"""Labelled sentences: find, download, read and batch them."""
