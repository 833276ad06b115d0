"""Differentiable operations, each with its plain formula and its fast path."""
