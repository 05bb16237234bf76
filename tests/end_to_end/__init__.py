"""Through the built wheel and the real commands."""
