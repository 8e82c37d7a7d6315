# SPDX-License-Identifier: Apache-2.0
"""Addresses as settings and commands have them."""

from __future__ import annotations

import pytest

from keytween.address import Address
from keytween_wire.errors import BadSetting


@pytest.mark.parametrize(
    ("text", "host", "port", "is_loopback"),
    [
        ("127.0.0.1:0", "127.0.0.1", 0, True),
        ("127.0.0.2:5570", "127.0.0.2", 5570, True),
        ("[::1]:5570", "::1", 5570, True),
        ("192.168.1.5:5570", "192.168.1.5", 5570, False),
        ("0.0.0.0:1", "0.0.0.0", 1, False),
        ("[::]:65535", "::", 65535, False),
    ],
)
def test_an_address_is_read_and_written(text: str, host: str, port: int, is_loopback: bool) -> None:
    address = Address.to_listen_at(text)
    assert (address.host, address.port, address.is_loopback) == (host, port, is_loopback)
    assert (str(address), address.endpoint) == (text, f"tcp://{text}")


@pytest.mark.parametrize(
    "text",
    ["", ":5570", "5570", "::1:5570", "1.2.3.4", "1.2.3.4:", "1.2.3.4:x", "1.2.3.4:65536", "1.2.3:-1"],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(BadSetting):
        Address.parse(text, name="bind")


@pytest.mark.parametrize("text", ["studio:5570", "localhost:0", "0.0.0.0:0", "[::]:0", "192.168.1.5:0"])
def test_what_leaves_open_where_to_listen_is_refused(text: str) -> None:
    with pytest.raises(BadSetting):
        Address.to_listen_at(text)


def test_a_host_may_have_a_name_where_one_connects() -> None:
    assert Address.parse("studio.local:5570", name="HOST:PORT") == Address("studio.local", 5570)
