# SPDX-License-Identifier: Apache-2.0
"""The array script for SLURM, with a stand-in for `sbatch` that runs each task of the array here.

It was tried on SLURM itself; this keeps the script's own part: counting shots, picking one, exit codes.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from discs import draw_disc
from keytween.config import Config

SCRIPT = Path(__file__).resolve().parents[2] / "packaging" / "farms" / "slurm_array.sh"
SBATCH = """#!/usr/bin/env bash
echo "$@" >>"$SAID"
for last; do
  case $last in
    --array=0-*) most=${last#--array=0-}; most=${most%%%*} ;;
    -*) ;;
    *) break ;;
  esac
  shift
done
for index in $(seq 0 "$most"); do
  code=0
  SLURM_ARRAY_TASK_ID=$index "$@" || code=$?
  echo "task $index ended with $code" >>"$SAID"
done
"""


def test_the_array_has_a_task_for_each_shot_and_each_says_how_it_ended(
    tmp_path: Path, config: Config
) -> None:
    for index in range(2):
        draw_disc(tmp_path / f"key{index}.png", centre=(30 + 20 * index, 32))
    (tmp_path / "shots.toml").write_text(
        '[defaults]\nengine = "dissolve"\nin_betweens = 2\nkeyframes = "key#.png"\n'
        '[[shot]]\nid = "a"\n[[shot]]\nid = "b"\nkeyframes = "no#.png"\n[[shot]]\nid = "c"\nexposure = 0\n'
    )
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "sbatch").write_text(SBATCH)
    (tmp_path / "bin" / "sbatch").chmod(0o755)
    said = tmp_path / "said.txt"
    environment = {
        **os.environ,
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "KEYTWEEN": f"{sys.executable} -m keytween.cli",
        "SAID": str(said),
    }
    command = [str(SCRIPT), "shots.toml", "--gres=gpu:1"]
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, timeout=120, stdout=subprocess.DEVNULL)
    told = said.read_text().splitlines()
    assert "--array=0-2%50" in told[0]
    assert "--gres=gpu:1" in told[0]
    assert [line.split()[-1] for line in told[1:]] == ["0", "3", "8"]
    assert (tmp_path / "shots-batch" / "frames" / "a" / "0004.png").is_file()
