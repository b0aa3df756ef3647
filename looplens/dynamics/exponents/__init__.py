"""Lyapunov exponents: how fast states that begin close to each other part or meet."""
