# SPDX-License-Identifier: Apache-2.0
"""linux.resources and linux.seccomp by walnut-runtime on this machine's own kernel and cgroups."""
import fcntl
import json
import os
import pathlib
import socket
import struct
import subprocess
import threading

import pytest

import test_runtime
from test_runtime import wait_for

rt = test_runtime.rt  # the fixture
V2 = pathlib.Path("/sys/fs/cgroup/cgroup.controllers").exists()
FILES = {"memory": ("memory/{}/memory.limit_in_bytes", "{}/memory.max"), "pids": ("pids/{}/pids.max", "{}/pids.max"),
         "quota": ("cpu/{}/cpu.cfs_quota_us", "{}/cpu.max"), "shares": ("cpu/{}/cpu.shares", "{}/cpu.weight"),
         "cpus": ("cpuset/{}/cpuset.cpus", "{}/cpuset.cpus")}


def limit(name, cgroup):
    return (pathlib.Path("/sys/fs/cgroup") / FILES[name][V2].format(cgroup)).read_text().strip()


@pytest.fixture
def path(rt):
    parent = f"walnut-resources-{os.getpid()}"
    rt.spec["linux"]["cgroupsPath"] = f"/{parent}/deep/{rt.id}"
    yield f"{parent}/deep/{rt.id}"
    rt("delete", "--force", rt.id, check=None)
    for base in [pathlib.Path("/sys/fs/cgroup"), *pathlib.Path("/sys/fs/cgroup").iterdir()]:
        for folder in (base / parent / "deep", base / parent):
            if folder.is_dir():
                folder.rmdir()


def test_limits_and_updates(rt, path):
    rt.spec["linux"]["resources"] = {"memory": {"limit": 64 << 20, "swap": 64 << 20}, "pids": {"limit": 40},
                                     "cpu": {"quota": 20000, "period": 100000, "shares": 512, "cpus": "0"}}
    rt.start()
    assert (limit("memory", path), limit("pids", path), limit("cpus", path)) == (str(64 << 20), "40", "0")
    assert limit("quota", path).split()[0] == "20000"
    # wider, then narrower: memory and memory+swap are in each other's way both times
    for mega in (128, 32):
        rt("update", "--memory", f"{mega}m", "--memory-swap", f"{mega}m", rt.id)
        assert limit("memory", path) == str(mega << 20)
    assert limit("pids", path) == "40"
    rt("update", "-r", "-", rt.id, input=json.dumps({"pids": {"limit": -1}, "cpu": {"quota": -1}}))
    assert limit("pids", path) == "max" and limit("quota", path).split()[0] in ("-1", "max")
    assert "pids" in rt("update", "-r", "-", rt.id, input='{"pids": {"limit": "x"}}', check=1).stderr
    stats = json.loads(rt("events", "--stats", rt.id).stdout)
    assert stats["type"] == "stats" and stats["id"] == rt.id
    data = stats["data"]
    assert data["memory"]["usage"]["limit"] == 32 << 20 and data["memory"]["usage"]["usage"] > 0
    assert data["cpu"]["usage"]["total"] > 0 and data["pids"]["current"] == 1 and data["memory"]["raw"]
    assert {"swap", "kernel", "kernelTCP"} <= data["memory"].keys()
    assert {"ioServiceBytesRecursive", "ioServicedRecursive"} <= data["blkio"].keys()


def test_too_many_processes(rt, path):
    rt.spec["linux"]["resources"] = {"pids": {"limit": 3}}
    done = rt.run("/bin/sh", "-c", "for i in 1 2 3 4 5; do sleep 5 & done; wait", check=None)
    assert "can't fork" in done.stderr


def test_pause_holds_and_kill_reaches_all(rt, path):
    rt.start("/bin/sh", "-c", "while :; do sleep 0.01; done & while :; do sleep 0.01; done")
    rt("pause", rt.id)
    assert rt.state()["status"] == "paused"
    assert "paused" in rt("pause", rt.id, check=1).stderr
    rt("resume", rt.id)
    wait_for(lambda: len(json.loads(rt("ps", "--format", "json", rt.id).stdout)) >= 2)
    rt("pause", rt.id)
    rt("kill", "--all", rt.id, "KILL")
    wait_for(lambda: rt.state()["status"] == "stopped")


def test_cgroups_made_inside_go_too(rt, path):
    rt.start()
    base = pathlib.Path("/sys/fs/cgroup") / ("" if V2 else "pids") / path
    (base / "a/b").mkdir(parents=True)
    rt("kill", rt.id, "KILL")
    wait_for(lambda: rt.state()["status"] == "stopped")
    rt("delete", rt.id)
    assert not base.exists()


@pytest.mark.parametrize("rules, read, write", [
    ([{"allow": False, "access": "rwm"}], 1, 1),
    ([{"allow": False, "access": "rwm"}, {"allow": True, "type": "c", "major": 10, "minor": 237, "access": "r"}], 0, 1),
    ([{"allow": False, "access": "rwm"}, {"allow": True, "type": "c", "access": "rw"},
      {"allow": False, "type": "c", "access": "rw"}], 1, 1),
], ids=["defaults", "one", "taken-back"])
def test_device_rules(rt, path, rules, read, write):
    """loop-control (10:237), which asks for no capability, by rules in their order; /dev/null is always usable."""
    rt.spec["linux"]["resources"] = {"devices": rules}
    rt.spec["linux"]["devices"] = [{"path": "/dev/device", "type": "c", "major": 10, "minor": 237}]
    done = rt.run("/bin/sh", "-c", "echo x > /dev/null || exit 9; (: < /dev/device) 2>/dev/null; r=$?; "
                  "(: > /dev/device) 2>/dev/null; echo $((r != 0)) $(($? != 0))")
    assert done.stdout.split() == [str(read), str(write)]


@pytest.mark.parametrize("linux, named", [
    ({"resources": {"unified": {"../memory.max": "1"}}}, "unified"),
    ({"resources": {"unified": {"cgroup.procs": "1"}}}, "cgroup.procs"),
    ({"resources": {"memory": {"swappiness": 101}}}, "swappiness"),
    ({"resources": {"memory": {"limit": 200, "swap": 100}}}, "memory.swap"),
    ({"resources": {"blockIO": {"weight": 5}}}, "blockIO.weight"),
    ({"resources": {"hugepageLimits": [{"pageSize": "3XB", "limit": 1}]}}, "pageSize"),
    ({"resources": {"devices": [{"allow": True, "access": "x"}]}}, "devices.access"),
    ({"resources": {"cpu": {"cpus": "9999"}}}, "cpuset.cpus"),
    ({"intelRdt": {"closID": "x"}}, "intelRdt"),
    ({"seccomp": {"defaultAction": "SCMP_ACT_NOTIFY"}}, "defaultAction"),
    ({"seccomp": {"defaultAction": "SCMP_ACT_MAYBE"}}, "SCMP_ACT_MAYBE"),
    ({"seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]}},
     "listenerPath"),
    ({"seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 3}}, "defaultErrnoRet"),
    ({"seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_FUN"]}}, "SECCOMP_FILTER_FLAG_FUN"),
    ({"seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_PDP11"]}}, "SCMP_ARCH_PDP11"),
])
def test_refusals_name_the_field(rt, linux, named):
    rt.spec["linux"].update(linux)
    assert named in rt.run("/bin/true", check=1).stderr


def test_systemd_is_refused_by_name_without_systemd(rt):
    rt.args("/bin/true").write()
    rt.spec["linux"]["cgroupsPath"] = f"system.slice:walnut:{rt.id}"
    assert "systemd" in rt("--systemd-cgroup", "run", rt.id, check=1).stderr


def seccomp(rt, default, *rules, **more):
    rt.spec["linux"]["seccomp"] = {"defaultAction": default, "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
                                   "syscalls": list(rules), **more}


def test_seccomp_actions(rt):
    rt.spec["process"]["noNewPrivileges"] = True
    seccomp(rt, "SCMP_ACT_ALLOW",
            {"names": ["mkdir", "mkdirat", "no_such_call"], "action": "SCMP_ACT_ERRNO", "errnoRet": 122},
            {"names": ["sethostname"], "action": "SCMP_ACT_KILL_PROCESS"},
            {"names": ["kill"], "action": "SCMP_ACT_ERRNO",
             "args": [{"index": 1, "value": 10, "op": "SCMP_CMP_EQ"}, {"index": 1, "value": 12, "op": "SCMP_CMP_EQ"}]},
            {"names": ["unlink"], "action": "SCMP_ACT_LOG"},
            flags=["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"])
    done = rt.run("/bin/sh", "-c", "mkdir /tmp/x; kill -10 $$; kill -12 $$; kill -0 $$ && echo zero; hostname x; echo $?")
    assert "quota" in done.stderr.lower() and "zero" in done.stdout and done.stdout.split()[-1] == str(128 + 31)


def test_the_cache_of_filters_is_not_fooled(rt):
    """A list of one senseless name must not pass for the list of the names it contains."""
    rule = {"names": ["mkdir mkdirat"], "action": "SCMP_ACT_ERRNO"}
    seccomp(rt, "SCMP_ACT_ALLOW", rule)
    rt.run("/bin/sh", "-c", "cd /tmp && busybox mkdir one")
    rule["names"] = ["mkdir", "mkdirat"]
    assert "not permitted" in rt.run("/bin/sh", "-c", "busybox mkdir /tmp/two", check=1).stderr
    assert "not permitted" in rt.run("/bin/sh", "-c", "busybox mkdir /tmp/two", check=1).stderr
    assert len(list((rt.root / ".seccomp").iterdir())) == 2


class Listener:
    """Answers every call with EDQUOT, as linux.seccomp.listenerPath's agent."""

    RECEIVE, SEND = 0xC0502100, 0xC0182101

    def __init__(self, path):
        self.states = []
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.bind(path)
        self.sock.listen(4)
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                peer, _ = self.sock.accept()
            except OSError:
                return
            message, fds, _, _ = socket.recv_fds(peer, 65536, 4)
            if not message:  # a process that ended before it had a filter
                continue
            self.states.append(json.loads(message))
            threading.Thread(target=self.answer, args=fds[:1], daemon=True).start()

    def answer(self, fd):
        while True:
            request = bytearray(80)
            try:
                fcntl.ioctl(fd, self.RECEIVE, request)
                fcntl.ioctl(fd, self.SEND, struct.pack("QqiI", struct.unpack_from("Q", request)[0], 0, -122, 0))
            except OSError:
                os.close(fd)
                return


@pytest.mark.parametrize("nnp", [False, True])
@pytest.mark.parametrize("also", [[], ["sendmsg", "write", "close", "futex", "sched_yield", "exit"]], ids=["one", "many"])
def test_seccomp_listener(rt, tmp_path, nnp, also):
    """Also when the very calls that hand the listener over are the listener's to decide: those it denies, here."""
    path = str(tmp_path / "s")
    listener = Listener(path)
    rt.spec["process"]["noNewPrivileges"] = nnp
    seccomp(rt, "SCMP_ACT_ALLOW", {"names": ["mkdir", "mkdirat", *also], "action": "SCMP_ACT_NOTIFY"}, listenerPath=path,
            listenerMetadata="about", flags=["SECCOMP_FILTER_FLAG_TSYNC"])
    done = rt.run("/bin/sh", "-c", "mkdir /tmp/x; true", check=None)
    assert also or "quota" in done.stderr.lower()
    assert not (rt.rootfs / "tmp/x").exists()
    state, = listener.states
    assert state["fds"] == ["seccompFd"] and state["metadata"] == "about" and state["state"]["id"] == rt.id
    assert state["pid"] == state["state"]["pid"] > 1
    if not also:
        rt.start()
        done = rt("exec", rt.id, "/bin/busybox", "mkdir", "/tmp/y", check=1)
        assert "quota" in done.stderr.lower() and listener.states[-1]["state"]["status"] == "running"
    listener.sock.close()


def test_seccomp_listener_that_is_not_there(rt, tmp_path):
    seccomp(rt, "SCMP_ACT_ALLOW", {"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}, listenerPath=str(tmp_path / "none"))
    assert "listenerPath" in rt.run("/bin/true", check=1).stderr


def test_out_of_memory_is_an_event(rt, path):
    rt.spec["linux"]["resources"] = {"memory": {"limit": 16 << 20, "swap": 16 << 20}}
    rt.start("/bin/sh", "-c", "sleep 2; dd if=/dev/zero of=/dev/null bs=64M count=1; sleep 3")
    with subprocess.Popen([rt.exe, "--root", rt.root, "events", "--interval", "100s", rt.id], stdout=subprocess.PIPE,
                          text=True) as events:
        line = events.stdout.readline()
        rt("kill", rt.id, "KILL", check=None)
        assert events.wait(20) == 0
    assert json.loads(line) == {"type": "oom", "id": rt.id}
