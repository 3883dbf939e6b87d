"""How good a pair is: whether its gate knows which tokens are safe, and what its pictures are worth."""
