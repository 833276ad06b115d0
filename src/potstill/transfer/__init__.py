"""The transfer set: unlabelled sentences and where they come from."""
