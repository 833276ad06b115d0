"""Labelled sentences: found, downloaded, read, and put into batches."""
