"""Benches: engines against scenes whose true in-betweens are known, and against pairs of a user's own."""
