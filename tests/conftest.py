"""Nothing is downloaded in a test, nor taken from what was downloaded before; no GPU is needed."""

from __future__ import annotations

import os
import tempfile

import torch

# Read by the Hugging Face libraries when they are first imported.
_CACHE = tempfile.TemporaryDirectory()
os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HOME": _CACHE.name}

# Read by Triton when it is first imported.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"
