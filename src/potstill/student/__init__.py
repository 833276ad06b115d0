"""DistilRNN, its tokenizer, and its files."""
