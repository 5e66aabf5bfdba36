"""Short hashes that tell whether something has changed. Knows nothing of what they are of."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def digest(values: Any) -> str:
    """16 hexadecimal digits of values that are JSON."""
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:16]
