"""Cores, memory and the Nipype plugin of a run, and the environment that Nipype needs."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from msnmo_bids.errors import ExitCode, MsnmoError, UsageError
from msnmo_bids.run.options import Performance
from msnmo_bids.run.session import nipype_level

logger = logging.getLogger(__name__)

WORKERS_LOG = "workers.log"
MOST_THREADS = 4
#: Of the free memory that a run takes.
SHARE = 0.9
CGROUP = Path("/sys/fs/cgroup")
#: How Nipype's plugins for clusters submit a job, by the beginning of their names.
_PROGRAMS = {"SLURM": "sbatch", "SGE": "qsub", "PBS": "qsub", "OAR": "oarsub", "LSF": "bsub",
             "Condor": "condor_submit"}  # fmt: skip
MEMORY_INFORMATION = Path("/proc/meminfo")


@dataclass(frozen=True)
class Resources:
    """How the workflow is run: Nipype plugin, its arguments, threads of one node, plugin file."""

    plugin: str
    omp_nthreads: int
    plugin_args: dict[str, Any] = field(default_factory=dict)
    file: Path | None = None

    def with_log(self, folder: Path, verbose: int) -> dict[str, Any]:
        """Return the plugin's arguments; what workers print goes to a file in a folder."""
        if self.plugin != "MultiProc":
            return dict(self.plugin_args)
        log = {"worker_log": str(folder / WORKERS_LOG), "log_level": nipype_level(verbose)}
        return {**self.plugin_args, **log}


def choose_resources(options: Performance) -> Resources:
    """Choose cores, threads, memory and plugin from the command line and the machine.

    The default number of threads does not depend on the number of scans: a run that resumes must
    compute exactly as the run that it completes.

    Raises
    ------
    UsageError
        If the plugin file cannot be used.
    """
    nprocs = options.nprocs or available_cores()
    omp_nthreads = options.omp_nthreads or min(nprocs, MOST_THREADS)
    if options.use_plugin is not None:
        plugin, plugin_args = read_plugin_file(options.use_plugin)
        threads = options.omp_nthreads or MOST_THREADS
        arguments = {**plugin_args, "omp_nthreads": threads}
        return Resources(plugin, threads, arguments, options.use_plugin)
    if omp_nthreads > nprocs:
        logger.warning("--omp-nthreads %d is more than --nprocs %d", omp_nthreads, nprocs)
    memory_gb = options.mem_mb / 1000 if options.mem_mb else available_memory_gb()
    arguments = {
        "n_procs": nprocs,
        "memory_gb": memory_gb,
        "mp_context": "forkserver",
        "raise_insufficient": False,
        "omp_nthreads": omp_nthreads,
    }
    return Resources("MultiProc", omp_nthreads, arguments)


def read_plugin_file(path: Path) -> tuple[str, dict[str, Any]]:
    """Read a Nipype plugin file: YAML or JSON with ``plugin`` and perhaps ``plugin_args``.

    Raises
    ------
    UsageError
        If the file is missing or of another form.
    """
    import yaml

    form = "Its form: {plugin: SLURM, plugin_args: {sbatch_args: '--mem=8G'}}"
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot be read ({error.strerror})", file=path) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"is neither YAML nor JSON ({error})", file=path, remedy=form) from error
    arguments = content.get("plugin_args") or {} if isinstance(content, dict) else None
    if not isinstance(arguments, dict) or not isinstance(content.get("plugin"), str):
        raise UsageError("is no Nipype plugin file", file=path, remedy=form)
    return content["plugin"], arguments


def check_plugin(resources: Resources, work_dir: Path) -> None:
    """Check that the plugin of a plugin file exists, can run here and can use the work folder.

    Raises
    ------
    UsageError
        If it is none of Nipype's, its program is not there, a number of its arguments is none, or
        the work folder has blanks, which plugins for clusters pass to a shell as they are.
    """
    name, arguments = resources.plugin, resources.plugin_args
    for key in ("n_procs", "memory_gb"):
        value = arguments.get(key, 1)
        if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
            problem = f"{key} must be a number above 0, not {value!r}"
            raise UsageError(problem, file=resources.file)
    if name == "MultiProc":
        return
    from nipype.pipeline import plugins

    known = sorted(one.removesuffix("Plugin") for one in dir(plugins) if one.endswith("Plugin"))
    if name not in known:
        raise UsageError(
            f"Nipype has no plugin '{name}'",
            file=resources.file,
            remedy=f"There are: {', '.join(known)}",
        )
    program = next((own for start, own in _PROGRAMS.items() if name.startswith(start)), None)
    if program and shutil.which(program) is None:
        raise UsageError(
            f"the plugin {name} needs the program {program}, which is not on the PATH",
            file=resources.file,
            remedy="Run msnmo where jobs are submitted, or leave --use-plugin out",
        )
    if len(str(work_dir).split()) > 1:
        raise UsageError(
            f"the plugin {name} cannot use a work folder with blanks in its name",
            file=work_dir,
            remedy="Choose another one (-w)",
        )


def available_cores() -> int:
    """Return the number of cores that this process may use (affinity and container limit)."""
    with suppress(AttributeError, OSError):
        cores = len(os.sched_getaffinity(0))
        with suppress(OSError, ValueError):
            quota, period = (CGROUP / "cpu.max").read_text().split()
            cores = min(cores, max(1, int(int(quota) / int(period))))
        return cores
    return os.cpu_count() or 1


def available_memory_gb() -> float:
    """Return the memory that a run may use, in GB (10⁹ bytes).

    It is `SHARE` of what is free now, within the limits of container and SLURM.
    """
    free = _free_memory()
    with suppress(OSError, ValueError):
        limit = int((CGROUP / "memory.max").read_text())
        free = min(free, limit)
    with suppress(KeyError, ValueError):  # set by SLURM, in MB
        free = min(free, int(os.environ["SLURM_MEM_PER_NODE"]) * 10**6)
    return free * SHARE / 1e9


def _free_memory() -> int:
    """Return the bytes of memory that are free now; where Linux does not tell, all of them."""
    with suppress(OSError, ValueError, StopIteration):
        lines = MEMORY_INFORMATION.read_text().splitlines()
        line = next(line for line in lines if line.startswith("MemAvailable:"))
        return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def settle_user(work_dir: Path | None) -> None:
    """Do without a home folder and a temporary one, which a user that nobody knows may not have.

    `work_dir` takes the temporary files where no usual place can be written.

    Raises
    ------
    MsnmoError
        If there is no place for temporary files (73).
    """
    try:
        (Path.home() / "pybids_config.json").exists()  # pybids asks so
    except (RuntimeError, OSError):  # neither HOME nor a known user; or it may not be read
        os.environ["HOME"] = "/nonexistent"
    if any(_writable(Path(folder)) for folder in _temporary_folders()):
        return
    if work_dir is not None:
        with suppress(OSError):
            _made(work_dir)
    if work_dir is None or not _writable(work_dir):
        raise MsnmoError(
            "there is no folder in which temporary files can be written",
            remedy="Give a work folder (-w) where the program has one, set TMPDIR to a folder that "
            "can be written, or make /tmp writable (docker: --tmpfs /tmp)",
            exit_code=ExitCode.CANNOT_CREATE_OUTPUT,
        )
    os.environ["TMPDIR"] = tempfile.tempdir = str(_made(work_dir.absolute() / "tmp"))


def set_environment(work_dir: Path) -> None:
    """Set what Nipype, templateflow and matplotlib want to find, before they are imported.

    No version check over the network; no file outside of the work folder where there is no home.
    """
    os.environ.update(
        NO_ET="1",
        NIPYPE_NO_ET="1",
        FSLOUTPUTTYPE="NIFTI_GZ",
        TEMPLATEFLOW_AUTOUPDATE="0",
        MPLBACKEND="Agg",
    )
    os.environ.setdefault("LOGNAME", "msnmo")  # Nipype's SLURM plugin asks for it
    os.environ.setdefault("TEMPLATEFLOW_HOME", str(work_dir / "templateflow"))
    if not _writable(Path(os.environ.get("HOME", "/nonexistent"))):
        os.environ["HOME"] = str(_made(work_dir / "home"))
        os.environ["MPLCONFIGDIR"] = str(_made(work_dir / "home" / "matplotlib"))


def _temporary_folders() -> list[str]:
    """Return where programs look for a temporary folder; Python would even take the current one."""
    return [*filter(None, map(os.environ.get, ("TMPDIR", "TEMP", "TMP"))), "/tmp", "/var/tmp"]


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _writable(folder: Path) -> bool:
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False
