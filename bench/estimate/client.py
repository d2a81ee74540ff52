"""Client of the estimation worker, which is restarted if a method crashes it.

Torch terminates the process where an exception reaches certain C++ code; only that method loses
its estimate. This module does not import torch.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator

from bench.errors import BenchError
from bench.estimate.fit import Estimate, Request
from bench.io.subprocess_call import ProcessEnded, call_each


def estimates(request: Request) -> Iterator[Estimate]:
    """The estimates of a request in the order of its methods, each when it is known.

    Raises BenchError if the model cannot be built or the counting process does not start.
    """
    left = list(request.methods)
    while left:
        remaining = {**request.model_dump(mode="json"), "methods": left}
        answers = call_each(
            "bench.estimate.worker:serve", remaining, environment={"OMP_NUM_THREADS": "1"}
        )
        try:
            next(answers)  # the model is built
        except ProcessEnded as ended:
            raise BenchError(
                "fit: the counting process ended before it began: "
                f"{ended.last_line or 'it said nothing'}; run 'bench doctor'"
            ) from ended
        try:
            for answer in answers:
                left.pop(0)
                yield Estimate.model_validate(answer)
        except ProcessEnded as ended:
            yield Estimate(method=left.pop(0), unavailable=_reason(ended.code))


def _reason(code: int) -> str:
    if code == -signal.SIGALRM:
        return "counting it took too long; a run counts it"
    how = signal.Signals(-code).name if code < 0 else f"code {code}"
    return f"counting it ended the process ({how}); a run counts it"
