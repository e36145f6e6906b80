from __future__ import annotations

import json
import os
import tempfile
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msnmo_bids.cli.main import parse_args
from msnmo_bids.errors import ExitCode, MsnmoError, UsageError
from msnmo_bids.run import resources
from msnmo_bids.run.record import to_toml


def chosen(*arguments: str) -> resources.Resources:
    return resources.choose_resources(parse_args(["in", "out", "participant", *arguments]))


def test_what_the_user_says():
    found = chosen("--nprocs", "3", "--omp-nthreads", "2", "--mem-mb", "4500")
    assert (found.plugin, found.omp_nthreads) == ("MultiProc", 2)
    expected = {"n_procs": 3, "memory_gb": 4.5, "mp_context": "forkserver"}
    assert expected.items() <= found.plugin_args.items()


@pytest.mark.parametrize(("cores", "threads"), [(1, 1), (2, 2), (4, 4), (16, 4)])
def test_default_threads_depend_on_cores_only(monkeypatch, cores, threads):
    monkeypatch.setattr(resources, "available_cores", lambda: cores)
    found = chosen()
    assert (found.plugin_args["n_procs"], found.omp_nthreads) == (cores, threads)


def test_memory_within_all_limits(monkeypatch, tmp_path):
    (tmp_path / "meminfo").write_text("MemTotal: 64000000 kB\nMemAvailable:   8000000 kB\n")
    monkeypatch.setattr(resources, "MEMORY_INFORMATION", tmp_path / "meminfo")
    monkeypatch.setattr(resources, "CGROUP", tmp_path)
    monkeypatch.delenv("SLURM_MEM_PER_NODE", raising=False)
    assert resources.available_memory_gb() == pytest.approx(0.9 * 8.192)
    (tmp_path / "memory.max").write_text("max\n")
    assert resources.available_memory_gb() == pytest.approx(0.9 * 8.192)
    (tmp_path / "memory.max").write_text("4000000000\n")
    assert resources.available_memory_gb() == pytest.approx(0.9 * 4.0)
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "3000")
    assert resources.available_memory_gb() == pytest.approx(0.9 * 3.0)
    monkeypatch.setattr(resources, "MEMORY_INFORMATION", tmp_path / "nothing")
    assert resources.available_memory_gb() > 0


def test_cores_within_the_limit_of_the_container(monkeypatch, tmp_path):
    monkeypatch.setattr(resources, "CGROUP", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    assert resources.available_cores() == 8
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert resources.available_cores() == 8
    (tmp_path / "cpu.max").write_text("250000 100000\n")
    assert resources.available_cores() == 2
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    assert resources.available_cores() == 1


@pytest.mark.parametrize(
    "text",
    [
        "plugin: SLURM\nplugin_args:\n  sbatch_args: --mem=8G\n",
        '{"plugin": "SLURM", "plugin_args": {"sbatch_args": "--mem=8G"}}',
    ],
)
def test_plugin_files(tmp_path, text):
    (tmp_path / "p").write_text(text)
    found = chosen("--use-plugin", str(tmp_path / "p"))
    assert found.plugin == "SLURM"
    assert found.plugin_args == {"sbatch_args": "--mem=8G", "omp_nthreads": 4}


@pytest.mark.parametrize("text", [None, "a: [", "just text", "[1]", "plugin_args: {}",
                                  "plugin: 3", "plugin: X\nplugin_args: [1]"])  # fmt: skip
def test_bad_plugin_files(tmp_path, text):
    if text is not None:
        (tmp_path / "p").write_text(text)
    with pytest.raises(UsageError) as caught:
        resources.read_plugin_file(tmp_path / "p")
    assert caught.value.exit_code == ExitCode.USAGE


def test_environment_without_a_home(monkeypatch, tmp_path):
    for name in ("TEMPLATEFLOW_HOME", "MPLCONFIGDIR", "NO_ET", "FSLOUTPUTTYPE", "LOGNAME"):
        monkeypatch.setenv(name, "x")  # so that they come back after the test
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "nothing"))
    resources.set_environment(tmp_path / "work")
    assert os.environ["HOME"] == str(tmp_path / "work" / "home")
    assert Path(os.environ["MPLCONFIGDIR"]).is_dir()
    assert os.environ["TEMPLATEFLOW_HOME"].startswith(str(tmp_path / "work"))
    assert os.environ["LOGNAME"]
    assert (os.environ["NO_ET"], os.environ["FSLOUTPUTTYPE"]) == ("1", "NIFTI_GZ")


def test_a_writable_home_stays(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("LOGNAME", "me")
    monkeypatch.setenv("TEMPLATEFLOW_HOME", "here")
    monkeypatch.setenv("MPLCONFIGDIR", "mine")
    resources.set_environment(tmp_path / "work")
    assert (os.environ["HOME"], os.environ["MPLCONFIGDIR"]) == (str(tmp_path), "mine")
    assert (os.environ["LOGNAME"], os.environ["TEMPLATEFLOW_HOME"]) == ("me", "here")
    assert not (tmp_path / "work").exists()


PLAIN = st.one_of(st.text(), st.integers(), st.booleans(), st.floats(allow_nan=False))


@given(st.dictionaries(st.text("abc_", min_size=1), st.one_of(PLAIN, st.lists(st.text()))))
def test_toml_round_trip(content):
    read = tomllib.loads(to_toml({**content, "table": content}))
    assert read.pop("table") == content
    assert json.dumps(read) == json.dumps({k: v for k, v in content.items() if k != "table"})


def test_toml_without_values():
    content = {"a": None, "b": Path("x"), "c": "caf\udce9", "d": {"e": None, "f": (1, 2)}}
    assert tomllib.loads(to_toml(content)) == {"b": "x", "c": "caf?", "d": {"f": [1, 2]}}


@pytest.mark.parametrize(
    ("plugin", "arguments", "problem"),
    [
        ("Slrum", {}, "Nipype has no plugin 'Slrum'. There are: .*SLURM"),
        ("slurm", {}, "Nipype has no plugin 'slurm'"),
        ("SLURM", {}, "needs the program sbatch, which is not on the PATH"),
        ("MultiProc", {"n_procs": "2"}, "n_procs must be a number above 0, not '2'"),
        ("MultiProc", {"memory_gb": 0}, "memory_gb must be a number above 0, not 0"),
    ],
)
def test_a_plugin_that_cannot_run_here(tmp_path, monkeypatch, plugin, arguments, problem):
    monkeypatch.setenv("PATH", str(tmp_path))
    file = tmp_path / "plugin.yml"
    with pytest.raises(UsageError, match=problem) as caught:
        resources.check_plugin(resources.Resources(plugin, 1, arguments, file), tmp_path)
    assert caught.value.file == str(file)


def test_a_cluster_cannot_use_blanks(tmp_path, monkeypatch):
    there = tmp_path / "two words"
    monkeypatch.setattr("shutil.which", lambda program: f"/bin/{program}")
    with pytest.raises(UsageError, match=r"two words: the plugin SLURM cannot use .* \(-w\)"):
        resources.check_plugin(resources.Resources("SLURM", 1), there)
    resources.check_plugin(resources.Resources("SLURM", 1), tmp_path)
    resources.check_plugin(resources.Resources("MultiProc", 1), there)


def test_a_user_without_home_and_temporary_folder(tmp_path, monkeypatch):
    monkeypatch.delenv("HOME")
    monkeypatch.setenv("TMPDIR", "/missing")
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(resources, "_temporary_folders", lambda: ["/missing"])
    monkeypatch.setattr(Path, "home", lambda: Path("~missing").expanduser())
    resources.settle_user(tmp_path)
    assert os.environ["HOME"] == "/nonexistent"
    assert os.environ["TMPDIR"] == tempfile.gettempdir() == str(tmp_path / "tmp")
    with pytest.raises(
        MsnmoError, match=r"temporary files can be written. Give a work folder"
    ) as e:
        resources.settle_user(None)
    assert e.value.exit_code is ExitCode.CANNOT_CREATE_OUTPUT


def test_a_home_that_may_not_be_read_is_none(monkeypatch):
    def refuse(path: Path) -> bool:
        raise PermissionError(path)

    monkeypatch.setenv("HOME", "/root")
    monkeypatch.setattr(Path, "exists", refuse)
    resources.settle_user(None)
    assert os.environ["HOME"] == "/nonexistent"
