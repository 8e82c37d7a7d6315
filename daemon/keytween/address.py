# SPDX-License-Identifier: Apache-2.0
"""An address and a port, as the setting `bind` and `keytween keys join` have them; pure."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address

from keytween_wire.errors import BadSetting

MOST_PORT = 65535


@dataclass(frozen=True, slots=True)
class Address:
    """A host and a port; port 0 is any that is free."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str, *, name: str) -> Address:
        """The address in `HOST:PORT` or `[HOST]:PORT`; raises BadSetting that calls it `name`."""
        host, colon, port = text.strip().rpartition(":")
        in_brackets = host.startswith("[") and host.endswith("]")
        if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > MOST_PORT:
            raise BadSetting(name=name, value=text, detail="it is no HOST:PORT, such as 192.168.1.5:5570")
        if ":" in host and not in_brackets:
            raise BadSetting(name=name, value=text, detail="an IPv6 address goes into [brackets]")
        return cls(host[1:-1] if in_brackets else host, int(port))

    @classmethod
    def to_listen_at(cls, text: str) -> Address:
        """The setting `bind`; raises BadSetting where a name or a port would leave open what is meant."""
        address = cls.parse(text, name="bind")
        try:
            ip_address(address.host)
        except ValueError as error:
            raise BadSetting(name="bind", value=text, detail="the host must be an IP address") from error
        if not address.is_loopback and not address.port:
            detail = "other machines need a port that stays the same, 1 to 65535"
            raise BadSetting(name="bind", value=text, detail=detail)
        return address

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def endpoint(self) -> str:
        """The same as ZeroMQ writes it."""
        return f"tcp://{self}"
