"""Keytween: the daemon, the engines and the command line."""

from keytween_wire import __version__

__all__ = ["__version__"]
