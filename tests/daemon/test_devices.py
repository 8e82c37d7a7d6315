"""What the machine computes with, as its driver's own program tells it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from keytween import devices

SAID = """Large, Inc. GPU, 580.1, 24576, 1024, 37
Small GPU, 580.1, 3072, 0, [N/A]
Odd GPU, 580.1, 8192, 100, 0
half a line
"""


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program in the place of the driver's own, which says what its file `said` holds."""
    program = tmp_path / "nvidia-smi"
    program.write_text(f'#!/bin/sh\ncat "{tmp_path}/said"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    (tmp_path / "said").write_text(SAID)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return program


def test_gpus_have_name_driver_memory_and_load_and_odd_lines_are_passed_over(driver: Path) -> None:
    large, odd = devices.gpus()
    assert (large.name, large.driver, large.total_mb, large.busy) == ("Large, Inc. GPU", "580.1", 24576, 37)
    assert large.free_mb == 23552
    assert odd.name == "Odd GPU"
    assert devices.visible() == ("0", "1")


def test_a_driver_that_fails_or_is_not_there_means_no_gpu(
    driver: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver.write_text("#!/bin/sh\nexit 9\n")
    assert devices.gpus() == ()
    monkeypatch.setenv("PATH", "/nowhere")
    assert devices.gpus() == devices.visible() == ()


def test_what_cuda_may_see_is_what_the_environment_says(
    driver: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-12, 3")
    assert devices.visible() == ("GPU-12", "3")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert devices.visible() == ()


def test_there_is_a_core_to_compute_with() -> None:
    assert 1 <= devices.cores() <= (os.cpu_count() or 1)
