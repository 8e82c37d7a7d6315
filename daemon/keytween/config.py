"""Settings, read once: the file, then the environment, then arguments; later ones win."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path

import platformdirs

from keytween_wire.connection import connection_path
from keytween_wire.errors import BadSetting

PREFIX = "KEYTWEEN_"
LOOPBACK = "127.0.0.1:0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What a user may set.

    `state` is the folder of jobs and log, `connection` the connection file, `max_megapixels` the pixel
    budget of one picture, `max_attempts` how often a job may lose its worker without a new frame,
    `idle_s` after how many seconds without work the worker exits and frees its memory, `hang_s` after how
    many seconds without a word in the middle of a job it is given up and replaced.
    `bind` is where it listens: an IP address and a port, 0 for any that is free.
    `devices` is `auto` for a worker on each GPU, or those that get one, as CUDA_VISIBLE_DEVICES names them.
    `metrics` is the loopback address and port of the figures for Prometheus, empty for none.
    """

    state: Path
    connection: Path
    max_megapixels: float = 100.0
    max_attempts: int = 3
    idle_s: float = 300.0
    hang_s: float = 900.0
    queued_jobs: int = 10_000
    devices: str = "auto"
    metrics: str = ""
    bind: str = LOOPBACK

    @property
    def log(self) -> Path:
        """The daemon's log file."""
        return self.state / "daemon.log"


def config_file() -> Path:
    """Where the settings file is looked for; KEYTWEEN_CONFIG overrides it."""
    return Path(
        os.environ.get("KEYTWEEN_CONFIG") or platformdirs.user_config_path("keytween") / "keytween.toml"
    )


def load(environment: Mapping[str, str] | None = None, **arguments: object) -> Config:
    """The settings in force; an argument of None counts as not given. Raises BadSetting."""
    environment = os.environ if environment is None else environment
    config = Config(state=platformdirs.user_state_path("keytween"), connection=connection_path())
    for values in (_from_file(config_file()), _from_environment(environment), arguments):
        config = _apply(config, values)
    return config


def _from_file(path: Path) -> dict[str, object]:
    if not path.is_file():
        return {}
    try:
        return dict(tomllib.loads(path.read_text("utf-8")))
    except (OSError, ValueError) as error:
        raise BadSetting(name="settings file", value=path, detail=str(error)) from error
    except RecursionError as error:
        raise BadSetting(name="settings file", value=path, detail="it is nested too deeply") from error


def _from_environment(environment: Mapping[str, str]) -> dict[str, object]:
    names = [f.name for f in fields(Config)]
    return {n: environment[PREFIX + n.upper()] for n in names if environment.get(PREFIX + n.upper())}


def _apply(config: Config, values: Mapping[str, object]) -> Config:
    known = {f.name: getattr(config, f.name) for f in fields(Config)}
    for name, value in values.items():
        if name not in known:
            raise BadSetting(name=name, value=value, detail=f"the settings are {', '.join(sorted(known))}")
    given = {n: _convert(n, type(known[n]), v) for n, v in values.items() if v is not None}
    return replace(config, **given)


def _convert(name: str, kind: type, value: object) -> object:
    if issubclass(kind, Path):
        if not isinstance(value, str | Path) or "\0" in str(value):
            shown = value.replace("\0", "\\0") if isinstance(value, str) else value
            raise BadSetting(name=name, value=shown, detail="it is no path")
        return Path(os.path.expanduser(value))
    try:
        found = value if type(value) is kind else kind(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise BadSetting(name=name, value=value, detail=f"it is not {kind.__name__}") from error
    if found != found or isinstance(value, bool):
        raise BadSetting(name=name, value=value, detail=f"it is not {kind.__name__}")
    return found
