"""The teacher's side: a GPT, LoRA on it, and the classifier made of both."""
