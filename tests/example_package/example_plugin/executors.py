"""Workers as processes of this machine. A batch system would be given the same command."""

import subprocess
import time
from dataclasses import dataclass

from nas_sweeps.sweep.executor import Ended, Executor, Pool, Room


class ProcessPool(Pool):
    def __init__(self, setting, workers):
        self.setting, self.workers, self.running = setting, workers, {}

    def room(self):
        return Room(((64.0, 0.0),), slots=self.workers)

    def start(self, trial_id, resources):
        self.running[trial_id] = subprocess.Popen(self.setting.command(trial_id, resources))

    def ended(self, timeout_s):
        time.sleep(min(timeout_s, 0.1))
        codes = {t: p.returncode for t, p in self.running.items() if p.poll() is not None}
        self.running = {t: p for t, p in self.running.items() if t not in codes}
        return [Ended(t, f"left with {code}" if code else None) for t, code in codes.items()]

    def close(self):
        for process in self.running.values():
            process.kill()
            process.wait()


@dataclass(frozen=True, slots=True, kw_only=True)
class Processes(Executor):
    workers: int = 2

    def pool(self, setting):
        return ProcessPool(setting, self.workers)
