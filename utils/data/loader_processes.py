"""A DataLoader whose workers survive a signal to the whole run, but never outlive the run."""

import atexit
import multiprocessing
import signal
import weakref
from multiprocessing import resource_tracker

from torch.utils.data import DataLoader


class SignalSafeLoader(DataLoader):
    """Ctrl-C and a scheduler's SIGTERM reach every process of a run, but the main process, which then saves,
    still needs its workers. So these start with both signals blocked; they exit when the main process tells
    them to or dies. `end_loaders` kills those that a crash left behind.
    """

    def __iter__(self):
        if self.num_workers and multiprocessing.get_start_method() != "fork":
            resource_tracker.ensure_running()  # starting it unblocks signals: do so first
        before = block_stops()
        others = set(multiprocessing.active_children())
        try:
            return super().__iter__()
        finally:
            WORKERS.update(set(multiprocessing.active_children()) - others)
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def block_stops(_worker=None):
    """Block both signals -> those blocked before. Workers call it too: a fork server's inherit no block."""
    return signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))


WORKERS = weakref.WeakSet()  # our data loading processes, not those of a host program


@atexit.register  # runs before multiprocessing's own, whose SIGTERM the workers block: it would wait for ever
def end_loaders():
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler raises where a worker was killed
    left = [process for process in WORKERS if process.is_alive()]
    for process in left:
        process.kill()
    for process in left:
        process.join()
