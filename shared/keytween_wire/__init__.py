"""What both ends of the wire agree on: errors, easing, timeline, messages, codec, connection, client."""

__all__ = ["PROTOCOL", "__version__"]

__version__ = "0.1.0"

PROTOCOL = 1
"""The version of the protocol in `docs/protocol.md`, numbered apart from the package."""
