"""What both ends of the wire agree on: errors, easing, timeline, messages, codec, connection, client."""

__all__ = ["OLDEST", "PROTOCOL", "__version__"]

__version__ = "0.1.0"

OLDEST, PROTOCOL = 1, 1
"""The oldest and the newest version of the protocol that this package speaks, numbered apart from the
package. `docs/protocol.md` describes the newest."""
