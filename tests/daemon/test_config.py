"""Settings: file, then environment, then arguments."""

from __future__ import annotations

from pathlib import Path

import pytest

from keytween.config import Config, load
from keytween_wire.errors import BadSetting


def test_later_ones_win(config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load().idle_s == 300.0
    (tmp_path / "keytween.toml").write_text("idle_s = 10\nmax_attempts = 5\nqueued_jobs = 7\n")
    monkeypatch.setenv("KEYTWEEN_IDLE_S", "20")
    monkeypatch.setenv("KEYTWEEN_MAX_ATTEMPTS", "6")
    loaded = load(idle_s=30)
    assert (loaded.queued_jobs, loaded.max_attempts, loaded.idle_s) == (7, 6, 30.0)


def test_an_argument_of_none_was_not_given(config: Config) -> None:
    assert load(state=None).state == config.state


@pytest.mark.parametrize(
    "text",
    [
        *(
            "idle_s = 'soon'",
            "colour = 3",
            "idle_s =",
            "idle_s = nan",
            "max_attempts = inf",
            "max_attempts = true",
        ),
        *("state = 5", 'state = "a\\u0000b"', f"state = 0x{'f' * 5000}", f"devices = {'[' * 5000}"),
    ],
    ids=range(10),
)
def test_a_bad_settings_file_is_said_plainly(config: Config, tmp_path: Path, text: str) -> None:
    (tmp_path / "keytween.toml").write_text(text)
    with pytest.raises(BadSetting):
        load()


def test_loading_makes_no_folder(config: Config) -> None:
    assert not config.state.exists()
    assert not config.connection.parent.exists()


def test_a_home_that_nobody_has_is_a_folder_like_others(config: Config) -> None:
    loaded = load({"KEYTWEEN_STATE": "~nobody-of-that-name/state"})
    assert loaded.state == Path("~nobody-of-that-name/state")
