"""Nothing is downloaded in a test, nor taken from what was downloaded before."""

from __future__ import annotations

import os
import tempfile

# Read by the Hugging Face libraries when they are first imported.
_CACHE = tempfile.TemporaryDirectory()
os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HOME": _CACHE.name}
