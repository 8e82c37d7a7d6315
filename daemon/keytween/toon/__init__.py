"""Drawings that Keytween draws itself, from named numbers: scenes and characters with known in-betweens."""
