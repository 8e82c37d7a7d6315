# SPDX-License-Identifier: Apache-2.0
"""What the attacks share."""

from figures import Measured as Measured
