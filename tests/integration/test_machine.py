# SPDX-License-Identifier: Apache-2.0
"""The life of a container and of the machine under it: what stays of its disk after each kind of end, what is said of a
death from outside, the limits on the host, and a guest that attacks its own devices."""
import glob
import os
import pathlib
import signal
import subprocess
import tarfile
import time

import pytest

from conftest import BUILD, IMAGE, ROOT, docker_archive, hyperv_available, traces


def cgroup_file(identity, controller, v1, v2):
    """The text of a file of the container's cgroup on this host."""
    path = pathlib.Path("/sys/fs/cgroup/walnut") / identity / v2
    if not path.exists():
        path = pathlib.Path("/sys/fs/cgroup") / controller / "walnut" / identity / v1
    return path.read_text().split()


def cgroups_of(identity):
    return glob.glob(f"/sys/fs/cgroup/walnut/{identity}") + glob.glob(f"/sys/fs/cgroup/*/walnut/{identity}")


def shim_of(identity):
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        try:
            args = pathlib.Path(path).read_bytes().split(b"\0")
        except OSError:
            continue
        if args[0].endswith(b"walnut-shim") and identity.encode() in args:
            return int(path.split("/")[2])
    raise AssertionError("no shim of " + identity)


def machine_of(identity, program):
    for pid in cgroup_file(identity, "pids", "cgroup.procs", "cgroup.procs"):
        args = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if os.path.basename(args[0].decode()).startswith(program):
            return int(pid)
    raise AssertionError(f"no {program} in the cgroup of {identity}")


def wait_for(condition, seconds=30):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.1)
    return False


def exited(engine, identity):
    assert wait_for(lambda: engine.inspect(identity)["State"]["Status"] == "exited"), engine.inspect(identity)["State"]
    return engine.inspect(identity)["State"]


def died(engine, identity):
    return engine.ok("events", "--since", "10m", "--until", str(int(time.time()) + 1), "--filter", "container=" + identity,
                     "--filter", "event=die", "--format", "{{.Actor.Attributes.exitCode}}", timeout=30).split()


# ---- the disk after an end

ENDS = {"kill": ["kill"], "stop": ["stop", "-t", "1"], "restart": ["restart", "-t", "0"]}


@pytest.mark.parametrize("how", ["exit", *ENDS])
def test_what_was_written_stays(engine, container, how):
    """Not synced by the container: the end itself must write it."""
    again = "[ -e /written ] && exec tail -n 1 /written; "
    c = container(..., "sh", "-c", again + "seq 1 50000 > /written; echo done; " + ("exit 3" if how == "exit" else "sleep 600"))
    if how != "exit":
        assert wait_for(lambda: engine.docker("logs", c).out == "done\n")
        engine.ok(*ENDS[how], c)
    if how != "restart":
        exited(engine, c)
        engine.ok("start", c)
    assert exited(engine, c)["ExitCode"] == 0
    assert engine.ok("logs", c).split() == ["done", "50000"]


@pytest.mark.parametrize("victim", ["shim", "machine", "devices"])
def test_killed_from_outside(engine, container, iso, victim):
    """What was synced is there; the cause is in inspect and the events; all is freed; it can be started again."""
    if iso == "process" and victim != "shim":
        pytest.skip("process: there is no machine")
    c = container(..., "sleep", "600")
    engine.ok("exec", c, "sh", "-c", "echo kept > /kept; sync")
    on_kvm = os.environ.get("WALNUT_TEST_ACCELERATOR") == "kvm"
    if victim == "devices" and on_kvm:
        pytest.skip("kvm: the devices are part of the machine's process")
    machine = "walnut-vmm" if on_kvm else "qemu"
    pid = shim_of(c) if victim == "shim" else machine_of(c, {"machine": machine, "devices": "walnut-vmm"}[victim])
    os.kill(pid, signal.SIGKILL)
    state = exited(engine, c)
    assert state["ExitCode"] == 137 and state["Pid"] == 0 and not state["OOMKilled"]
    assert {"shim": "shim", "machine": "virtual machine", "devices": "device process"}[victim] in state["Error"], state
    assert died(engine, c) == ["137"]
    assert wait_for(lambda: not cgroups_of(c)), cgroups_of(c)
    assert wait_for(lambda: not [t for t in traces(engine) if c in t and not t.startswith("folder")]), traces(engine)
    engine.ok("start", c)
    assert engine.ok("exec", c, "cat", "/kept") == "kept"


def test_volatile_disk_survives_a_restart(engine, iso):
    """A container that removes itself at its end is not synced to the disk, but a restart is not its end."""
    c = engine.ok("run", "-d", "--rm", "--isolation=" + iso, IMAGE, "sleep", "600")
    try:
        engine.ok("exec", c, "sh", "-c", "echo kept > /kept")
        engine.ok("restart", "-t", "0", c)
        assert engine.ok("exec", c, "cat", "/kept") == "kept"
    finally:
        engine.docker("rm", "-f", c)


# ---- limits

def test_limits_on_the_host(engine, container, iso):
    c = container("--memory=64m", "--cpus=0.5", "--cpuset-cpus=0", ..., "sleep", "600")
    memory = int(cgroup_file(c, "memory", "memory.limit_in_bytes", "memory.max")[0])
    assert cgroup_file(c, "cpuset", "cpuset.cpus", "cpuset.cpus") == ["0"]
    quota = cgroup_file(c, "cpu", "cpu.cfs_quota_us", "cpu.max")[0]
    assert quota == "50000"
    if iso == "process":
        assert memory == 64 << 20
        return
    assert 64 << 20 < memory <= 512 << 20
    assert 8 < int(cgroup_file(c, "pids", "pids.max", "pids.max")[0]) < 256
    assert machine_of(c, "qemu") and machine_of(c, "walnut-vmm")
    assert engine.ok("exec", c, "cat", "/sys/fs/cgroup/memory.max") == str(64 << 20)


def test_cgroup_is_removed(engine, container):
    c = container(..., "sleep", "600")
    assert cgroups_of(c)
    engine.ok("kill", c)
    exited(engine, c)
    assert not cgroups_of(c)


def test_update(engine, container, iso):
    c = container("--memory=64m", "--memory-swap=-1", ..., "sleep", "600")
    engine.ok("update", "--memory=96m", "--memory-swap=-1", "--cpus=0.5", "--pids-limit=77", c)
    quota = cgroup_file(c, "cpu", "cpu.cfs_quota_us", "cpu.max")[0]
    assert quota == "50000"
    if iso == "hyperv":
        read = "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max /sys/fs/cgroup/cpu.max"
        assert engine.ok("exec", c, "sh", "-c", read).split() == [str(96 << 20), "77", "50000", "100000"]
    else:
        assert cgroup_file(c, "memory", "memory.limit_in_bytes", "memory.max") == [str(96 << 20)]
        assert cgroup_file(c, "pids", "pids.max", "pids.max") == ["77"]
    host = engine.inspect(c)["HostConfig"]
    assert (host["Memory"], host["PidsLimit"], host["NanoCpus"]) == (96 << 20, 77, 500000000)


def test_update_beyond_the_machine_is_refused(engine, container, iso):
    if iso == "process":
        pytest.skip("process: there is no machine")
    c = container("--memory=64m", "--memory-swap=-1", ..., "sleep", "600")
    result = engine.docker("update", "--memory=1g", "--memory-swap=-1", c)
    assert result.code == 1 and "virtual machine has 128 MiB" in result.err and "stop the container" in result.err
    result = engine.docker("update", "--cpus=1.5", c)
    assert result.code == 1 and ("1 processor" in result.err or "CPUs" in result.err)
    host = engine.inspect(c)["HostConfig"]
    assert (host["Memory"], host["NanoCpus"]) == (64 << 20, 0)


def test_pause(engine, container):
    c = container(..., "sh", "-c", "i=0; while :; do i=$((i+1)); echo $i; sleep 0.1; done")
    assert wait_for(lambda: engine.docker("logs", c).out)
    engine.ok("pause", c)
    assert engine.inspect(c)["State"]["Status"] == "paused"
    time.sleep(0.5)
    first = engine.ok("logs", c)
    time.sleep(1)
    assert engine.ok("logs", c) == first
    assert "paused" in engine.docker("exec", c, "true").err
    engine.ok("unpause", c)
    assert wait_for(lambda: len(engine.ok("logs", c)) > len(first))
    engine.ok("pause", c)
    engine.ok("kill", c)
    assert exited(engine, c)["ExitCode"] == 137


def test_top(engine, container):
    """The table comes from the machine the processes run on; there need be no ps in the container."""
    c = container(..., "sh", "-c", "sleep 1234 & exec sleep 5678")
    assert wait_for(lambda: "1234" in (top := engine.ok("top", c)) and "exec" not in top)
    lines = engine.ok("top", c, "-o", "pid,ppid,args").splitlines()
    assert lines[0].split() == ["PID", "PPID", "COMMAND"]
    found = {" ".join(line.split()[2:]): line.split()[:2] for line in lines[1:]}
    assert set(found) == {"sleep 5678", "sleep 1234"} and found["sleep 1234"][1] == found["sleep 5678"][0]
    assert engine.ok("top", c).splitlines()[0].split()[:2] == ["UID", "PID"]


def test_out_of_memory(engine, iso):
    result = engine.docker("run", "--name", "oom-" + iso, "--isolation=" + iso, "--memory=48m", "--memory-swap=48m", IMAGE,
                           "tail", "/dev/zero")
    try:
        assert result.code == 137 and engine.inspect("oom-" + iso)["State"]["OOMKilled"]
        told = engine.ok("events", "--since", "5m", "--until", str(int(time.time()) + 1), "--filter", "container=oom-" + iso,
                         "--format", "{{.Action}}").split()
        assert "oom" in told and "die" in told
    finally:
        engine.docker("rm", "-f", "oom-" + iso)


def test_fork_bomb_within_a_limit(engine, container):
    c = container("--pids-limit=40", ..., "sh", "-c", "while :; do sleep 100 & done")
    neighbour = container(..., "sleep", "600")
    time.sleep(1)
    assert engine.ok("exec", neighbour, "echo", "alive") == "alive"
    engine.ok("kill", c) if engine.inspect(c)["State"]["Running"] else None
    assert exited(engine, c)["ExitCode"] in (2, 137)


# ---- what a container finds

def test_low_ports_and_ping(run):
    names = "/proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/net/ipv4/ping_group_range"
    assert run(..., "cat", *names.split(), check=0).out.split() == ["0", "0", "2147483647"]


def test_privileged_devices(run):
    plain = set(run(..., "ls", "/dev", check=0).out.split())
    assert plain == {"core", "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "tty",
                     "urandom", "zero"}
    all_of_them = set(run("--privileged", ..., "ls", "/dev", check=0).out.split())
    assert plain < all_of_them and {"kmsg", "vda"} & all_of_them and "console" not in all_of_them


# ---- hyperv that can not be had

def test_without_qemu_hyperv_is_refused(engine, tmp_path):
    socket = f"unix://{tmp_path}/s"
    env = dict(os.environ, PATH="/nonexistent")
    daemon = subprocess.Popen([str(BUILD / "walnutd"), "--host", socket, "--data-root", str(tmp_path / "data"), "--exec-root",
                               str(tmp_path / "run"), "--accelerator", "software"], env=env, stdin=subprocess.DEVNULL,
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def docker(*args):
        return subprocess.run(["docker", "-H", socket, *args], capture_output=True, text=True, timeout=60, env=engine.env() |
                              {"DOCKER_HOST": socket})
    try:
        assert wait_for(lambda: docker("load", "-i", engine.image_archive).returncode == 0)
        result = docker("run", "--isolation=hyperv", IMAGE, "true")
        assert result.returncode == 125
        assert "hyperv isolation is not available" in result.stderr and "install the package qemu-system-x86" in result.stderr
        assert docker("ps", "-aq").stdout == "" and os.listdir(tmp_path / "data/containers") == []
        assert docker("run", "--rm", IMAGE, "echo", "process goes on").stdout == "process goes on\n"
    finally:
        daemon.terminate()
        daemon.wait(20)


# ---- a hostile guest

@pytest.fixture(scope="module")
def hostile(engine, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    subprocess.run(["cc", "-static", "-O1", "-o", folder / "vsock_flood", ROOT / "tests/integration/guest/vsock_flood.c"],
                   check=True, timeout=120)
    with tarfile.open(folder / "layer.tar", "w") as tar:
        tar.add(folder / "vsock_flood", "vsock_flood")
    docker_archive.make(folder / "image.tar", "walnut-test/hostile:1", [engine.root + "/layer.tar", folder / "layer.tar"])
    engine.load(folder / "image.tar")
    return "walnut-test/hostile:1"


def usage(pid):
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    rss = int(status.split("VmRSS:")[1].split()[0])
    return rss, len(os.listdir(f"/proc/{pid}/fd"))


def test_guest_floods_vsock(engine, hostile):
    """Thousands of connections, garbage, nothing read: the processes on the host stay small, and the container usable."""
    if reason := hyperv_available(engine):
        pytest.fail("hyperv: " + reason)
    c = engine.ok("run", "-d", "--privileged", "--isolation=hyperv", hostile, "/vsock_flood", "12")
    try:
        pids = shim_of(c), machine_of(c, "walnut-vmm")
        before = [usage(p) for p in pids]
        worst = list(before)
        for _ in range(6):
            engine.docker("exec", c, "echo", "x", timeout=60)  # its streams may be stolen: that is the guest's loss
            try:
                now = [usage(p) for p in pids]
            except OSError:
                break
            worst = [(max(a[0], b[0]), max(a[1], b[1])) for a, b in zip(worst, now)]
        state = exited(engine, c)
        assert state["ExitCode"] == 0, state
        assert int(engine.ok("logs", c).split()[1]) > 500, engine.ok("logs", c)
        for (rss, fds), (rss0, fds0) in zip(worst, before):
            assert rss < rss0 + 24 * 1024 and fds < fds0 + 64, (before, worst)
    finally:
        engine.docker("rm", "-f", c)


def test_every_machine_has_its_own_user(engine, iso, container):
    if iso == "process":
        return
    users = set()
    for identity in (container("sleep", "100"), container("sleep", "100")):
        process = f"/proc/{machine_of(identity, 'walnut-vmm')}"
        for namespace in ("user", "mnt", "net", "ipc", "pid"):
            assert os.readlink(f"{process}/ns/{namespace}") != os.readlink(f"/proc/self/ns/{namespace}"), namespace
        status = pathlib.Path(process + "/status").read_text()
        users.add(status.split("Uid:")[1].split()[0])
        assert "CapBnd:\t0000000000000000" in status and "NoNewPrivs:\t1" in status and "Seccomp:\t2" in status
    assert len(users) == 2 and "0" not in users


def test_freed_memory_returns_to_the_host(engine, container, iso):
    """Free page reporting of the balloon: what the guest frees, the host has again, without being asked."""
    if iso == "process" or os.environ.get("WALNUT_TEST_ACCELERATOR") != "kvm":
        pytest.skip("needs a virtual machine on KVM: the others have no balloon")
    c = container("sleep", "600")

    def resident():
        status = pathlib.Path(f"/proc/{machine_of(c, 'walnut-vmm')}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) >> 10
    before = resident()
    engine.ok("exec", c, "dd", "if=/dev/zero", "of=/dev/shm/x", "bs=1M", "count=60")
    full = resident()
    assert full > before + 40
    engine.ok("exec", c, "rm", "/dev/shm/x")
    assert wait_for(lambda: resident() < full - 40, 60), (before, full, resident())
