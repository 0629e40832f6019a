"""The only place where tasks are created: each has an owner, a name, and a visible end."""

import asyncio
import inspect
import logging
from collections.abc import Callable, Coroutine
from typing import Any

log = logging.getLogger("skylb.tasks")


async def attempt(coroutine: Coroutine[Any, Any, None], *, name: str) -> BaseException | None:
    """Runs what handles bytes from elsewhere, in a task of its own: however it fails, its caller goes on.

    Returns:
        The error that it ended with, which is logged; ``None`` for none.
    """
    task = asyncio.create_task(coroutine, name=name)
    try:
        await asyncio.wait([task])
    finally:
        if not task.done():  # the caller is cancelled
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
    if task.cancelled():
        return None
    error = task.exception()
    if error is not None:
        log.error("%s failed; it is not tried again", name, exc_info=error)
    return error


class TaskGroup:
    """Long-running tasks of one component: started by name, cancelled together.

    A task that ends with an exception is logged with its name and handed to ``on_failure``. Where that ends
    the process, the tasks are loops over what is known here: what strangers and peers send is handled in an
    `attempt`, or in a group without ``on_failure``.

    Args:
        on_failure: called with the task's name and its exception.
    """

    def __init__(self, on_failure: Callable[[str, BaseException], None] | None = None) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._on_failure = on_failure

    def __len__(self) -> int:
        return len(self._tasks)

    def start(self, coroutine: Coroutine[Any, Any, Any], *, name: str) -> asyncio.Task[Any]:
        """Runs ``coroutine`` as a task until it ends or ``stop`` is called."""
        task = asyncio.create_task(coroutine, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: "asyncio.Task[Any]") -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            log.error("task %s failed", task.get_name(), exc_info=error)
            if self._on_failure is not None:
                self._on_failure(task.get_name(), error)

    async def stop(self) -> None:
        """Cancels every task and waits until all have ended.

        One that has not begun does so before: cancelled earlier, it would not reach its `finally`.
        """
        tasks = list(self._tasks)
        fresh = [task for task in tasks if _is_fresh(task)]
        for task in tasks:
            if task not in fresh:
                task.cancel()
        try:
            if fresh:
                await asyncio.sleep(0)
        finally:
            for task in fresh:
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _is_fresh(task: "asyncio.Task[Any]") -> bool:
    coroutine = task.get_coro()
    if not inspect.iscoroutine(coroutine):
        return False
    return inspect.getcoroutinestate(coroutine) == inspect.CORO_CREATED
