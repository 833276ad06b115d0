"""Training loops, what their steps are made of, and what they leave."""
