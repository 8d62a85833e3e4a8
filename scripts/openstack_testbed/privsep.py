"""What services start to do what needs privileges (oslo.privsep's helper), with one request done after the other.

It does them on several threads otherwise, with locks that eventlet has made its own: two that meet at one wait for ever.
"""

import sys
from collections.abc import Callable
from concurrent import futures
from typing import Any


class InTurn(futures.Executor):
    """Does what it is given at once."""

    def __init__(self, workers: int) -> None:
        pass

    def submit(self, work: Callable[..., Any], /, *arguments: Any, **named: Any) -> "futures.Future[Any]":
        done: futures.Future[Any] = futures.Future()
        try:
            done.set_result(work(*arguments, **named))
        except Exception as error:  # noqa: BLE001 - whoever asked is told
            done.set_exception(error)
        return done


if __name__ == "__main__":
    futures.ThreadPoolExecutor = InTurn  # type: ignore[assignment, misc]
    from oslo_privsep.daemon import helper_main

    sys.exit(helper_main())
