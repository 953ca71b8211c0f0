"""Prints a digest of what every model gives, as JSON: for comparing builds of the runtime.

`ORTOLAN_LIBRARY=PATH python tests/digests.py`: the real models, where they are, and the corpus.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np

import corpus
import models_bundle
import models_lib as lib
import ortolan

# Streams of hundreds of runs tell no more than a few of them.
_STEPS = 4


def digest(check: lib.Check) -> str:
    """A digest of all outputs of the first steps of a check."""
    session = ortolan.InferenceSession(ortolan.convert(check.source))
    names = [value.name for value in session.get_outputs()]
    found = hashlib.sha256()
    before: dict[str, Any] = {}
    for step in check.steps[:_STEPS]:
        feeds = dict(step.feeds) | {to: before[of] for to, of in step.carried.items()}
        before = dict(zip(names, session.run(None, feeds), strict=True))
        for name, array in lib.as_tensors(before).items():
            content = repr(array.tolist()).encode() if array.dtype == object else array.tobytes()
            found.update(name.encode() + str(array.dtype).encode() + content)
            found.update(np.array(array.shape).tobytes())
    return found.hexdigest()


def main() -> None:
    """Prints the digests by the name of the check."""
    names = [*([] if lib.MISSING else lib.check_names()), *corpus.names()]
    print(json.dumps({name: digest(models_bundle.make_check(name)) for name in names}))


if __name__ == "__main__":
    main()
