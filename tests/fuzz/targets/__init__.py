# SPDX-License-Identifier: Apache-2.0
"""What is fuzzed: each module reads one kind of bytes in `one_input`, and raises only for a finding.

`WORDS` are what its format is written with, for whoever makes new inputs; `LONGEST` is the longest input.
"""

NAMES = ("codec", "headers", "pictures", "manifests", "timelines", "weights", "connection")
