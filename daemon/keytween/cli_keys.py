# SPDX-License-Identifier: Apache-2.0
"""The `keys` commands: who of other machines may connect, and the way to a daemon on another machine."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from keytween.terminal import command, print_json, say


def add(commands: Any) -> None:
    """Adds `keys` to the command line."""
    text = "say which machines may connect, and join a daemon on another one"
    keys = commands.add_parser("keys", help=text, description=text[0].upper() + text[1:] + ".")
    actions = keys.add_subparsers(title="actions", metavar="ACTION", required=True)
    show = command(actions, "show", "print this machine's public key, for `keys allow`", _show)
    show.add_argument("--daemon", action="store_true", help="the key of the daemon here, for `keys join`")
    allow = command(actions, "allow", "let a machine's key connect to the daemon here", _allow)
    allow.add_argument("name", metavar="NAME", help="whose key it is")
    allow.add_argument("key", metavar="KEY", help="what `keytween keys show` printed there, in single quotes")
    forget = command(actions, "forget", "let a key connect no longer; what it has open is closed", _forget)
    forget.add_argument("name", metavar="NAME", help="whose key, or the key itself")
    command(actions, "list", "list the keys that may connect", _list)
    join = command(actions, "join", "write the connection file of a daemon on another machine", _join)
    join.add_argument("address", metavar="HOST:PORT", help="where the daemon listens")
    join.add_argument("key", metavar="KEY", help="what `keytween keys show --daemon` printed there")
    join.add_argument("-o", "--output", type=Path, help="the file (default: beside the settings file)")


def _show(options: argparse.Namespace) -> int:
    from keytween.config import load
    from keytween.joining import client_key, server_key

    key = (server_key if options.daemon else client_key)(load()).public
    if options.json:
        print_json({"key": key})
    say(options, key)
    return 0


def _allow(options: argparse.Namespace) -> int:
    from keytween.authorised import AuthorisedKeys
    from keytween.config import load

    AuthorisedKeys(load().state).allow(options.name, options.key)
    return _report(options, options.name, options.key, f"{options.name} may connect.")


def _forget(options: argparse.Namespace) -> int:
    from keytween.authorised import AuthorisedKeys
    from keytween.config import load

    gone = AuthorisedKeys(load().state).forget(options.name)
    return _report(options, gone.name, gone.key, f"{gone.name or gone.key} may connect no longer.")


def _report(options: argparse.Namespace, name: str, key: str, text: str) -> int:
    if options.json:
        print_json({"name": name, "key": key})
    say(options, text)
    return 0


def _list(options: argparse.Namespace) -> int:
    from keytween.authorised import AuthorisedKeys
    from keytween.config import load

    guests = AuthorisedKeys(load().state).guests()
    if options.json:
        print_json([{"name": guest.name, "key": guest.key} for guest in guests])
    for guest in guests:
        say(options, f"{guest.key}  {guest.name}".rstrip())
    if not guests:
        say(options, "No key of another machine may connect.")
    return 0


def _join(options: argparse.Namespace) -> int:
    from keytween.config import config_file, load
    from keytween.joining import join

    file, welcome = join(load(), options.address, options.key, options.output)
    file = file.absolute()
    if options.json:
        print_json({"connection": str(file), "version": welcome.version})
    say(options, f"The daemon at {options.address} (Keytween {welcome.version}) lets this machine in.")
    say(options, f"Its connection file: {file}")
    say(options, f"For the command line, put this into {config_file()}:")
    say(options, f'  connection = "{file.as_posix()}"')
    say(options, "In Blender, choose it as Connection File in the extension's preferences.")
    return 0
