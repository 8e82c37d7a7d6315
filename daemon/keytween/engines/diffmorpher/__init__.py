"""DiffMorpher (Zhang et al., CVPR 2024), written from the paper: exact, batched, one rendering."""

from keytween.engines.diffmorpher.pipeline import DiffMorpher

__all__ = ["DiffMorpher"]
