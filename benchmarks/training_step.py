"""Time and peak memory of one training step of the joint model and of each baseline.

``python -m benchmarks.training_step --side 160 --json FILE``

A step is the forward pass, the losses, the backward pass and Adam's update, on random numbers. Each
network and precision runs in a process of its own, so that the peak is its own: of the resident set
on a CPU, of torch's allocator on a GPU. Prints a Markdown table as it goes. CPU seconds, of all
threads, say more than wall seconds where the machine has other work.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path

from msnmo_bids.model import registry
from msnmo_bids.model.config import INPUT_CHANNELS

OUT_OF_MEMORY = "out of memory"
PRECISIONS = ("fp32", "bf16")


def default_names() -> tuple[str, ...]:
    """Return the joint model and its baselines: the rows of Tables 3 and 4."""
    return tuple(dict.fromkeys(registry.names(3) + registry.names(4)))


def measure(asked: argparse.Namespace) -> dict[str, object]:
    """Run the steps of one network in this process; return its figures."""
    import torch

    if asked.threads:
        torch.set_num_threads(asked.threads)
    if asked.memory_gib:
        resource.setrlimit(resource.RLIMIT_DATA, (int(asked.memory_gib * 2**30),) * 2)
    try:
        wall, cpu = run_steps(asked)
    except (RuntimeError, MemoryError) as error:
        # A CPU's allocator raises a plain RuntimeError.
        if isinstance(error, RuntimeError) and "memory" not in str(error):
            raise
        return {"failure": OUT_OF_MEMORY}
    if asked.device == "cpu":
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    else:
        peak = torch.cuda.max_memory_allocated()
    return {"seconds": wall, "cpu_seconds": cpu, "peak_gib": peak / 2**30}


def run_steps(asked: argparse.Namespace) -> tuple[list[float], list[float]]:
    """Return the wall and the CPU seconds of each step after the warm-up."""
    import torch

    from msnmo_bids.model.losses import JointLoss

    torch.manual_seed(0)
    entry = registry.entry(asked.names[0])
    network = entry.build(width=asked.width).to(asked.device).train()
    loss, optimizer = JointLoss(entry.loss), torch.optim.Adam(network.parameters())
    shape = (asked.batch, INPUT_CHANNELS, *(asked.side,) * 3)
    image = torch.randn(shape, device=asked.device)
    mask = (image[:, :1] > 2.3).float()
    diagnosis = torch.arange(asked.batch, device=asked.device) % 2
    autocast = torch.autocast(asked.device, torch.bfloat16, enabled=asked.precisions[0] == "bf16")
    wall, cpu = [], []
    for _ in range(asked.warm_up + asked.repeats):
        started, started_cpu = time.perf_counter(), time.process_time()
        optimizer.zero_grad()
        with autocast:
            terms = loss(network(image), mask, diagnosis)
        terms.total.backward()
        optimizer.step()
        if asked.device == "cuda":
            torch.cuda.synchronize()
        wall.append(time.perf_counter() - started)
        cpu.append(time.process_time() - started_cpu)
    return wall[asked.warm_up :], cpu[asked.warm_up :]


def measure_apart(name: str, precision: str, arguments: list[str]) -> dict[str, object]:
    """Measure one network in a process of its own; a killed one ran out of memory."""
    # Of options given twice the last counts.
    command = [sys.executable, __file__, *arguments, "--apart"]
    command += ["--names", name, "--precisions", precision]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    figures = {"network": name, "precision": precision}
    if done.returncode == -9:
        return figures | {"failure": OUT_OF_MEMORY}
    if done.returncode:
        return figures | {"failure": f"exit code {done.returncode}"}
    return figures | json.loads(done.stdout.splitlines()[-1])


def table_row(figures: dict) -> str:
    """Return one line of the Markdown table."""
    start = f"| {figures['network']} | {figures['precision']} |"
    if "failure" in figures:
        return f"{start} {figures['failure']} | | |"
    wall, cpu = (
        ", ".join(f"{seconds:.2f}" for seconds in figures[key])
        for key in ("seconds", "cpu_seconds")
    )
    return f"{start} {wall} | {cpu} | {figures['peak_gib']:.2f} |"


def describe_machine(device: str) -> str:
    """Return the processor that computes, and torch's version."""
    import torch

    if device == "cuda":
        return f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    models = [line.split(":")[1].strip() for line in text.splitlines() if "model name" in line]
    return f"{models[0] if models else platform.machine()}, torch {torch.__version__}"


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=160, help="of the cube, voxels (default: 160)")
    parser.add_argument("--batch", type=int, default=1, help="scans in a step (default: 1)")
    parser.add_argument("--width", type=float, default=1.0, help="factor of the channels")
    parser.add_argument("--names", nargs="+", choices=registry.names(), default=default_names())
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=PRECISIONS)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, help="of the CPU (default: torch's)")
    parser.add_argument("--memory-gib", type=float, help="stop a network on a CPU that takes more")
    parser.add_argument("--warm-up", type=int, default=1, help="steps not timed (default: 1)")
    parser.add_argument("--repeats", type=int, default=3, help="timed steps (default: 3)")
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--apart", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main() -> None:
    """Measure from the command line."""
    arguments = sys.argv[1:]
    asked = parse(arguments)
    if asked.apart:
        print(json.dumps(measure(asked)))
        return
    machine = describe_machine(asked.device)
    print(f"{machine}; cube of {asked.side}, batch of {asked.batch}, width {asked.width}\n")
    print("| network | precision | step, wall s | step, CPU s | peak memory, GiB |")
    print("|---|---|---|---|---|", flush=True)
    results = []
    for name in asked.names:
        for precision in asked.precisions:
            results.append(measure_apart(name, precision, arguments))
            print(table_row(results[-1]), flush=True)
            if asked.json:
                settings = {key: getattr(asked, key) for key in ("side", "batch", "width")}
                content = {"machine": machine, "device": asked.device, **settings}
                asked.json.write_text(json.dumps(content | {"steps": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
