# SPDX-License-Identifier: Apache-2.0
"""What a privileged root can do to a hyperv container: it harms that container alone, and everything is freed."""
import os
import pathlib
import time

import pytest

from conftest import IMAGE, hyperv_available, traces


@pytest.fixture
def attacked(engine):
    """attacked(options, script) -> state of a privileged hyperv container; then host, neighbour and leaks are checked."""
    reason = hyperv_available(engine)
    if reason:
        pytest.skip("hyperv: " + reason)
    neighbour = engine.ok("run", "-d", "--isolation=hyperv", IMAGE, "sleep", "600")
    boot_id = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text()
    before = traces(engine)
    names = []

    def attack(options, script, seconds=60):
        names.append(f"attack-{os.getpid()}-{len(names)}")
        result = engine.docker("run", "--privileged", "--isolation=hyperv", "--name", names[-1], *options, IMAGE, "sh", "-c",
                               script, timeout=seconds)
        state = engine.inspect(names[-1])["State"]
        assert state["Status"] == "exited" and state["ExitCode"] == result.code, (result, state)
        return state, result
    yield attack
    since = time.monotonic()
    assert engine.ok("exec", neighbour, "echo", "alive", timeout=30) == "alive"
    assert engine.inspect(neighbour)["State"]["Running"]
    assert pathlib.Path("/proc/sys/kernel/random/boot_id").read_text() == boot_id
    for name in names:
        died = engine.ok("events", "--since", "10m", "--until", str(int(time.time()) + 1), "--filter", "container=" + name,
                         "--filter", "event=die", "--format", "{{.Actor.Attributes.exitCode}}", timeout=30)
        assert died, "no die event"
        identity = engine.inspect(name)["Id"]
        engine.ok("rm", name)
        assert not os.path.exists(f"{engine.root}/data/containers/{identity}")
    while (left := traces(engine) - before) and time.monotonic() - since < 10:
        time.sleep(0.2)
    assert not left
    engine.docker("rm", "-f", neighbour)


def test_kernel_panic(attacked):
    state, result = attacked([], "echo 2 > /proc/sys/vm/panic_on_oom; tail /dev/zero; echo survived")
    assert result.code == 137 and "survived" not in result.out
    assert "kernel panicked" in state["Error"]


def test_sysrq_crash(attacked):
    state, result = attacked([], "echo c > /proc/sysrq-trigger; echo survived")
    assert result.code == 137 and "survived" not in result.out
    assert "kernel panicked" in state["Error"] and "sysrq" in state["Error"]


def test_sysrq_is_for_the_privileged(engine):
    if reason := hyperv_available(engine):
        pytest.skip("hyperv: " + reason)
    result = engine.docker("run", "--rm", "--isolation=hyperv", IMAGE, "sh", "-c", "echo c > /proc/sysrq-trigger; echo survived")
    assert result.code == 0 and result.out == "survived\n" and "sysrq-trigger" in result.err


def test_fork_bomb_within_a_limit(attacked):
    state, result = attacked(["--pids-limit=60"], "for i in $(seq 200); do sleep 2 & done; echo never")
    assert result.code != 0 or "fork" in result.err or "never" in result.out


def test_fork_bomb_without_a_limit(attacked):
    state, result = attacked(["--memory=64m"], "f() { f | f & }; f; sleep 2; exit 3", seconds=120)
    assert state["OOMKilled"] or result.code in (2, 3, 137)


def test_full_memory(attacked):
    state, result = attacked(["--memory=48m"], "tail /dev/zero")
    assert result.code == 137 and state["OOMKilled"]


def test_full_disk(attacked):
    state, result = attacked(["--storage-opt", "size=32m"], "dd if=/dev/zero of=/full bs=1M count=100")
    assert result.code == 1 and "No space left" in result.err
