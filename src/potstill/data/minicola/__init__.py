"""MiniCoLA: minimal pairs of acceptable and unacceptable English sentences, made by a grammar."""
