"""A SLURM of two nodes in a folder of its own: munge, controller and nodes, started and stopped by tests.

Everything is private (keys, sockets, ports, state), so that a SLURM that the machine may have is not touched. Needs
Debian's slurm-wlm and munge, and root: the daemons start jobs as their user.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

NEEDED = ("sbatch", "slurmctld", "slurmd", "munged", "squeue", "scancel", "scontrol")
PATIENCE_S = 300
NODES = ("n0", "n1")
LARGEST = 5
"""MaxArraySize: small, so that short sweeps are split."""

CONFIG = """\
ClusterName=slidebatch
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
PlugStackConfig={folder}/plugstack.conf
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SlurmdParameters=config_overrides
MaxArraySize={largest}
KillWait=3
MinJobAge=3600
SchedulerParameters=batch_sched_delay=0
ReturnToService=2
NodeName=n0 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=4 RealMemory=16000 State=UNKNOWN
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=4 RealMemory=16000 State=UNKNOWN
PartitionName=short Nodes=n0,n1 Default=YES MaxTime=60 State=UP
"""


def missing() -> str | None:
    """Why SLURM cannot be started here; None if it can."""
    absent = [name for name in NEEDED if shutil.which(name, path=_path()) is None]
    if absent:
        return f"SLURM is not installed here ({', '.join(absent)}): apt-get install slurm-wlm munge"
    return None if os.geteuid() == 0 else "SLURM is started by root alone"


def _path() -> str:
    return os.environ["PATH"] + ":/usr/sbin:/sbin"


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [int(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports


@dataclass
class Slurm:
    """A running SLURM. `folder` must have a short path: sockets lie in it."""

    folder: Path
    daemons: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        """What a user's command needs to find it."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "SBATCH", "PBS", "SLIDEBATCH"))}
        return {**kept, "PATH": _path(), "SLURM_CONF": str(self.folder / "slurm.conf"), "OMP_NUM_THREADS": "1"}

    def start(self) -> None:
        """Write the configuration, start munge, controller and nodes, wait until they take jobs."""
        folder, host = self.folder, socket.gethostname().split(".")[0]
        folder.chmod(0o755)
        values = {"folder": folder, "host": host, "ports": _free_ports(3), "largest": LARGEST}
        (folder / "slurm.conf").write_text(CONFIG.format(**values))
        (folder / "plugstack.conf").write_text("optional spank_pbs.so\n")
        (folder / "munge.key").write_bytes(os.urandom(128))
        (folder / "munge.key").chmod(0o600)
        private = {name: str(folder / f"munge.{name}") for name in ("socket", "key", "pid", "log", "seed")}
        self._daemon(
            *("munged", "--foreground", "--force", f"--socket={private['socket']}", f"--key-file={private['key']}"),
            *(f"--pid-file={private['pid']}", f"--log-file={private['log']}", f"--seed-file={private['seed']}"),
        )
        self._until(lambda: (folder / "munge.socket").exists(), "munge")
        self._daemon("slurmctld", "-D", "-f", str(folder / "slurm.conf"))
        self._until(lambda: self.tell("scontrol", "ping", check=False).endswith("is UP"), "the controller")
        for node in NODES:  # on one machine: Debian builds slurmd so that it may run several times
            self._daemon("slurmd", "-D", "-N", node, "-f", str(folder / "slurm.conf"), out=f"slurmd.{node}")
        self._until(lambda: self.tell("sinfo", "-N", "-h", "-o", "%T", check=False).split() == ["idle"] * 2, "a node")

    def _daemon(self, *command: str, out: str | None = None) -> None:
        with open(self.folder / f"{out or command[0]}.out", "wb") as out_file:
            daemon = subprocess.Popen(
                command, env=self.environment, stdout=out_file, stderr=out_file, start_new_session=True
            )
        self.daemons.append(daemon)

    def _until(self, ready: object, what: str) -> None:
        end = time.monotonic() + PATIENCE_S
        while not ready():  # type: ignore[operator]
            assert time.monotonic() < end, f"{what} did not start: {self._logs()}"
            time.sleep(0.1)

    def _logs(self) -> str:
        logs = [*self.folder.glob("*.log"), *self.folder.glob("*.out")]
        return "\n".join(f"{p.name}: {p.read_text(errors='replace')[-1000:]}" for p in logs)

    def tell(self, *command: str, cwd: Path | None = None, check: bool = True) -> str:
        """Give a command; what it printed, without the last line's end."""
        done = subprocess.run(
            command, env=self.environment, cwd=cwd, capture_output=True, text=True, timeout=PATIENCE_S
        )
        assert done.returncode == 0 or not check, f"{command}: {done.stdout} {done.stderr}"
        return done.stdout.strip()

    def stop(self) -> None:
        """End all jobs, then the daemons, those that were started last first."""
        self.tell("scancel", "--user=root", check=False)
        end = time.monotonic() + 20
        while time.monotonic() < end and self.tell("squeue", "--noheader", check=False):
            time.sleep(0.2)  # a node that is stopped leaves its jobs alive
        for daemon in reversed(self.daemons):
            daemon.send_signal(signal.SIGTERM)
            try:
                daemon.wait(20)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
