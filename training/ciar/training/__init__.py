"""Trains the embedded pair: icons → tokens (VQ), tokens → cloud transformer, cloud law → drafter, all → a bundle."""
