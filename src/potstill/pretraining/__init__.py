"""DistilRNN-base: a student pretrained on general text that a decoder writes."""
