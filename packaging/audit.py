# SPDX-License-Identifier: Apache-2.0
"""Asks whether weaknesses are known in what the locks hold; `scripts/check` runs it.

Exits with 1 when one is known and not waived in audit-waived.txt. Where the service cannot be asked it says
so and exits with 0: an audit that cannot be made is no reason to hold up work.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LOCKS = ("requirements.lock", "requirements-diffusion.lock", "packaging/bpy-tests.lock")
WAIVED = ROOT / "packaging" / "audit-waived.txt"
PROGRAM = "pip-audit>=2.10"
WITHIN_S = 50


def main() -> int:
    """Audits the locks; returns the exit code."""
    try:
        report = ask([ROOT / lock for lock in LOCKS])
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        print(f"audit: NOTHING WAS AUDITED: {type(error).__name__}, {str(error).strip()[-300:]}")
        return 0
    lines, code = judge(report, read_waived(WAIVED.read_text("utf-8")))
    print("\n".join(f"audit: {line}" for line in lines))
    return code


def ask(locks: Sequence[Path], *options: str) -> Mapping[str, Any]:
    """What pip-audit says of these locks. Raises OSError, SubprocessError or ValueError."""
    command = ["uv", "tool", "run", "--from", PROGRAM, "pip-audit", "--disable-pip", "--format", "json"]
    command += ["--progress-spinner", "off", "--timeout", "5", *options]
    for lock in locks:
        command += ["--requirement", str(lock)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=WITHIN_S, cwd=ROOT)
    if not done.stdout.strip():
        raise ValueError(done.stderr)
    return json.loads(done.stdout)


def judge(report: Mapping[str, Any], waived: Mapping[str, str]) -> tuple[list[str], int]:
    """What is to be said of a report, and the exit code. A package that was left out was not audited."""
    packages = report["dependencies"]
    skipped = [package["name"] for package in packages if "skip_reason" in package]
    lines, known = [], set[str]()
    bad = False
    for package in packages:
        for weakness in package.get("vulns", ()):
            ids = {weakness["id"], *weakness.get("aliases", ())}
            known |= ids
            reason = next((waived[name] for name in sorted(ids) if name in waived), None)
            bad = bad or reason is None
            fixed = ", ".join(weakness.get("fix_versions", ())) or "nowhere yet"
            text = f"{package['name']} {package['version']}: {weakness['id']}, mended in {fixed}"
            lines.append(f"{text}; waived: {reason}" if reason else f"{text}. FAILED")
    audited = len(packages) - len(skipped)
    lines += [
        f"the waiver of {name} is not needed any more" for name in waived if audited and name not in known
    ]
    if not audited:
        lines.append("NOTHING WAS AUDITED: the service that knows of weaknesses cannot be reached from here")
    else:
        left = f", NOT {', '.join(skipped)}" if skipped else ""
        lines.append(f"{audited} packages audited{left}")
    return lines, int(bad)


def read_waived(text: str) -> dict[str, str]:
    """Waived ids with their reasons. Raises ValueError for one without a reason."""
    waived = {}
    for line in text.splitlines():
        name, _, reason = (part.strip() for part in line.partition("#"))
        if name and not re.search(r"\w{3}", reason):
            raise ValueError(f"{name} is waived without a reason")
        if name:
            waived[name] = reason
    return waived


if __name__ == "__main__":
    sys.exit(main())
