"""Find and load saved models, and predict with them."""
