# SPDX-License-Identifier: Apache-2.0
"""walnut-runtime by its command line: life cycle, what the specification asks, and attacks that must fail."""
import array
import glob
import json
import os
import pathlib
import shutil
import socket
import subprocess
import threading
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[3]
BUILD = pathlib.Path(os.environ.get("BUILD", ROOT / "build")).resolve()
CAPS = ["CAP_CHOWN", "CAP_KILL", "CAP_SETUID", "CAP_SETGID"]
APPLETS = "sh cat echo id ls sleep true stat mount touch hostname kill ps readlink head wc tty env dd mknod test grep date".split()


def program():
    for path in (BUILD / "walnut-runtime", BUILD / "src/runtime/walnut-runtime"):
        if path.exists():
            return str(path)
    pytest.skip("walnut-runtime is not built here (sanitizer builds leave it out)")


class Bundle:
    """A bundle with busybox, and commands on its one container."""

    def __init__(self, tmp):
        self.dir, self.rootfs, self.root = tmp / "bundle", tmp / "bundle/rootfs", tmp / "state"
        self.exe, self.id = program(), f"rt-{os.getpid()}-{tmp.name}".replace("[", "-").replace("]", "-")[:60]
        for name in ("bin", "proc", "dev", "sys", "tmp", "etc"):
            (self.rootfs / name).mkdir(parents=True)
        shutil.copy(shutil.which("busybox"), self.rootfs / "bin/busybox")
        for name in APPLETS:
            (self.rootfs / "bin" / name).symlink_to("busybox")
        self.spec = {
            "ociVersion": "1.2.0",
            "root": {"path": "rootfs", "readonly": False},
            "process": {"terminal": False, "user": {"uid": 0, "gid": 0}, "cwd": "/", "args": ["/bin/true"],
                        "env": ["PATH=/bin"],
                        "capabilities": {k: list(CAPS) for k in ("bounding", "effective", "permitted")}},
            "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"},
                       {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
                       {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
                        "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]}],
            "linux": {"namespaces": [{"type": t} for t in ("pid", "network", "ipc", "uts", "mount")],
                      "maskedPaths": ["/proc/kcore"], "readonlyPaths": ["/proc/sys"]},
        }

    def args(self, *argv):
        self.spec["process"]["args"] = list(argv)
        return self

    def write(self):
        (self.dir / "config.json").write_text(json.dumps(self.spec))

    def __call__(self, *argv, check=0, timeout=60, input=None, **more):
        out = subprocess.run([self.exe, "--root", str(self.root), *argv], capture_output=True, text=True, timeout=timeout,
                             cwd=self.dir, input=input if input is not None else "", **more)
        assert check is None or out.returncode == check, (argv, out.returncode, out.stdout, out.stderr)
        return out

    def run(self, *argv, check=0, options=(), **more):
        """run ID with a program; what it wrote and its exit status."""
        if argv:
            self.args(*argv)
        self.write()
        return self("run", *options, self.id, check=check, **more)

    def start(self, *argv):
        """create and start; its stdio is /dev/null, as it outlives the commands."""
        self.args(*(argv or ("/bin/sleep", "1000"))).write()
        self.silent("create", self.id)
        self("start", self.id)

    def silent(self, *argv, check=0, **more):
        with open(os.devnull, "r+") as null, open(self.dir / "stderr", "w+") as err:
            code = subprocess.run([self.exe, "--root", str(self.root), *argv], stdin=null, stdout=null, stderr=err,
                                  timeout=60, cwd=self.dir, **more).returncode
            err.seek(0)
            text = err.read()
        assert code == check, (argv, code, text)
        return text

    def state(self):
        return json.loads(self("state", self.id).stdout)

    def leftovers(self):
        cgroups = [p for pattern in ("/sys/fs/cgroup/*", "/sys/fs/cgroup/*/*")
                   for p in glob.glob(f"{pattern}/*{self.id}*")]
        states = list(self.root.glob("[!.]*")) if self.root.exists() else []
        mounts = [l for l in pathlib.Path("/proc/self/mountinfo").read_text().splitlines() if str(self.dir) in l]
        return cgroups, states, mounts


@pytest.fixture
def rt(tmp_path):
    b = Bundle(tmp_path)
    yield b
    b("delete", "--force", b.id, check=None)
    assert b.leftovers() == ([], [], [])


def wait_for(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.02)


# ---- life cycle ----

def test_life_cycle(rt, tmp_path):
    rt.args("/bin/sleep", "1000").write()
    rt.silent("create", "--pid-file", str(tmp_path / "pid"), rt.id)
    state = rt.state()
    assert (state["status"], state["id"], state["bundle"], state["ociVersion"]) == ("created", rt.id, str(rt.dir), "1.2.0")
    assert int((tmp_path / "pid").read_text()) == state["pid"]
    assert "is created" not in rt("start", rt.id).stderr and rt.state()["status"] == "running"
    assert "running" in rt("start", rt.id, check=1).stderr
    assert "not stopped" in rt("delete", rt.id, check=1).stderr
    assert "already exists" in rt.silent("create", rt.id, check=1)
    assert json.loads(rt("ps", "--format", "json", rt.id).stdout) == [state["pid"]]
    assert [c["id"] for c in json.loads(rt("list", "--format", "json").stdout)] == [rt.id]
    rt("kill", rt.id, "KILL")
    wait_for(lambda: rt.state()["status"] == "stopped")
    assert "not running" in rt("kill", rt.id, check=1).stderr
    rt("delete", rt.id)
    assert "does not exist" in rt("state", rt.id, check=1).stderr
    rt("delete", "--force", rt.id)


def test_changes_of_the_bundle_after_create_do_not_count(rt):
    rt.args("/bin/sleep", "1000").write()
    rt.silent("create", rt.id)
    rt.args("/bin/false").write()
    rt("start", rt.id)
    assert b"sleep" in pathlib.Path(f"/proc/{rt.state()['pid']}/cmdline").read_bytes()


def test_run_exit_status_and_streams(rt):
    out = rt.run("/bin/sh", "-c", "cat; echo err >&2; exit 7", check=7, input="hello")
    assert (out.stdout, out.stderr) == ("hello", "err\n")


def test_run_killed_by_signal(rt):
    rt.start()
    rt("delete", "--force", rt.id)
    rt.spec["linux"]["namespaces"] = [n for n in rt.spec["linux"]["namespaces"] if n["type"] != "pid"]
    rt.run("/bin/sh", "-c", "kill -9 $$", check=137)


def test_exec(rt, tmp_path):
    rt.start()
    assert rt("exec", rt.id, "/bin/sh", "-c", "echo $A; exit 5", check=5).stdout == "\n"
    assert rt("exec", "--env", "A=b", rt.id, "/bin/sh", "-c", "echo $A").stdout == "b\n"
    assert rt("exec", "--user", "7:8", "--cwd", "/tmp", rt.id, "/bin/sh", "-c", "id -u; id -g; pwd").stdout == "7\n8\n/tmp\n"
    assert "no such file" in rt("exec", rt.id, "/bin/nosuch", check=255).stderr
    assert "not found in $PATH" in rt("exec", rt.id, "nosuch", check=255).stderr
    process = dict(rt.spec["process"], args=["/bin/sh", "-c", "echo $B"], env=["B=file"])
    (tmp_path / "process.json").write_text(json.dumps(process))
    assert rt("exec", "--process", str(tmp_path / "process.json"), rt.id).stdout == "file\n"
    rt.silent("exec", "--detach", "--pid-file", str(tmp_path / "pid"), rt.id, "/bin/sleep", "500")
    assert b"500" in pathlib.Path(f"/proc/{(tmp_path / 'pid').read_text()}/cmdline").read_bytes()


def test_pause_and_resume(rt):
    rt.start()
    rt("pause", rt.id)
    assert rt.state()["status"] == "paused"
    assert "paused" in rt("exec", rt.id, "/bin/true", check=255).stderr
    rt("resume", rt.id)
    assert rt.state()["status"] == "running"
    rt("pause", rt.id)
    rt("kill", rt.id, "KILL")
    wait_for(lambda: rt.state()["status"] == "stopped")


def test_exec_in_a_paused_container_waits_for_its_end(rt):
    """The process freezes as it enters; what holds the state's lock then would keep resume out for ever."""
    rt.start()
    rt("pause", rt.id)
    with subprocess.Popen([rt.exe, "--root", str(rt.root), "exec", "--ignore-paused", rt.id, "/bin/sh", "-c", "exit 7"]) as late:
        time.sleep(0.5)
        assert late.poll() is None
        rt("resume", rt.id)
        assert late.wait(20) == 7


def test_program_that_does_not_exist_fails_create(rt):
    rt.args("/bin/nosuch").write()
    assert "no such file" in rt.silent("create", rt.id, check=1)
    assert rt.leftovers() == ([], [], [])


def test_log_in_json(rt, tmp_path):
    log = tmp_path / "log"
    rt("--log", str(log), "--log-format", "json", "state", "nosuch", check=1)
    line = json.loads(log.read_text())
    assert line["level"] == "error" and "does not exist" in line["msg"] and line["time"]


def test_console_socket(rt, tmp_path):
    rt.spec["process"]["terminal"] = True
    rt.spec["process"]["consoleSize"] = {"height": 33, "width": 77}
    rt.args("/bin/sh", "-c", "tty; stty size 2>/dev/null; sleep 1000").write()
    assert "console socket" in rt.silent("create", rt.id, check=1)
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(tmp_path / "console"))
    server.listen(1)
    got = []

    def accept():
        peer, _ = server.accept()
        _, anc, _, _ = peer.recvmsg(64, socket.CMSG_LEN(4))
        got.append(array.array("i", anc[0][2])[0])

    thread = threading.Thread(target=accept)
    thread.start()
    rt.silent("create", "--console-socket", str(tmp_path / "console"), rt.id)
    thread.join(20)
    rt("start", rt.id)
    assert b"/dev/pts/0" in os.read(got[0], 1000)
    import fcntl
    import struct
    import termios
    assert struct.unpack("HHHH", fcntl.ioctl(got[0], termios.TIOCGWINSZ, b"\0" * 8))[:2] == (33, 77)
    os.close(got[0])


def test_preserved_descriptors(rt, tmp_path):
    (tmp_path / "three").write_text("three\n")
    fd = os.open(tmp_path / "three", os.O_RDONLY)
    os.dup2(fd, 3)
    rt.args("/bin/sh", "-c", "cat <&3; ls /proc/self/fd").write()
    out = rt("run", "--preserve-fds", "1", rt.id, pass_fds=(3,))
    os.close(fd)
    assert out.stdout.split() == ["three", "0", "1", "2", "3", "4"]  # 4 is ls's own
    # those that are not open are left out, and nothing of the runtime's takes their place
    rt.args("/bin/ls", "/proc/self/fd").write()
    assert rt("run", "--preserve-fds", "90", rt.id).stdout.split() == ["0", "1", "2", "3"]


# ---- the specification ----

def test_process_properties(rt):
    rt.spec["process"].update(user={"uid": 5, "gid": 6, "additionalGids": [7, 8], "umask": 63}, noNewPrivileges=True,
                              rlimits=[{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}], oomScoreAdj=500,
                              ioPriority={"class": "IOPRIO_CLASS_BE", "priority": 6},
                              scheduler={"policy": "SCHED_BATCH", "nice": 5})
    rt.spec["process"]["capabilities"]["ambient"] = ["CAP_KILL"]
    rt.spec["process"]["capabilities"]["inheritable"] = ["CAP_KILL"]
    rt.spec.update(hostname="there", domainname="below")
    out = rt.run("/bin/sh", "-c", "id -G; umask; ulimit -n; hostname; cat /proc/sys/kernel/domainname; cat /proc/self/oom_score_adj; "
                 "grep -E 'CapAmb|CapBnd|NoNewPrivs' /proc/self/status; cat /proc/self/stat").stdout.splitlines()
    assert out[:6] == ["6 7 8", "0077", "100", "there", "below", "500"]
    bounding = sum(1 << n for n in (0, 5, 6, 7))
    assert {l.split()[0]: int(l.split()[1], 16) for l in out[6:9]} == {"CapBnd:": bounding, "CapAmb:": 1 << 5, "NoNewPrivs:": 1}
    assert out[9].split()[18] == "5" and out[9].split()[40] == "3"  # nice, SCHED_BATCH


def test_user_namespace(rt):
    rt.spec["linux"]["namespaces"].append({"type": "user"})
    for kind in ("uidMappings", "gidMappings"):
        rt.spec["linux"][kind] = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    os.chmod(rt.dir.parent, 0o755)
    out = rt.run("/bin/sh", "-c", "id -u; cat /proc/self/uid_map; stat -c %u /proc/1").stdout.split()
    assert out == ["0", "0", "100000", "65536", "0"]


def test_time_namespace(rt):
    rt.spec["linux"]["namespaces"].append({"type": "time"})
    rt.spec["linux"]["timeOffsets"] = {"boottime": {"secs": 1000000}}
    out = float(rt.run("/bin/cat", "/proc/uptime").stdout.split()[0])
    assert out - float(pathlib.Path("/proc/uptime").read_text().split()[0]) == pytest.approx(1000000, abs=60)


@pytest.mark.parametrize("kind", ["network", "ipc", "uts", "pid"])
def test_joined_namespace(rt, kind):
    other = subprocess.Popen(["unshare", "-niupf", "--kill-child", "sleep", "1000"])
    try:
        wait_for(lambda: os.readlink(f"/proc/{other.pid}/ns/net") != os.readlink("/proc/self/ns/net"))
        name = {"network": "net", "pid": "pid_for_children"}.get(kind, kind)
        path = f"/proc/{other.pid}/ns/{name}"
        rt.spec["linux"]["namespaces"] = [n for n in rt.spec["linux"]["namespaces"] if n["type"] != kind]
        rt.spec["linux"]["namespaces"].append({"type": kind, "path": path})
        got = rt.run("/bin/readlink", f"/proc/self/ns/{name.replace('_for_children', '')}").stdout.strip()
        assert got == os.readlink(path)
        rt.spec["linux"]["namespaces"][-1]["path"] = "/proc/self/ns/mnt"
        assert "is not a" in rt.run(check=1).stderr
    finally:
        other.kill()
        other.wait()


def test_mount_options(rt, tmp_path):
    source = tmp_path / "source"
    (source / "below").mkdir(parents=True)
    (rt.rootfs / "full").mkdir()
    (rt.rootfs / "full/file").write_text("kept")
    rt.spec["mounts"] += [
        {"destination": "/bind", "type": "bind", "source": str(source), "options": ["rbind", "ro", "nosuid", "noexec"]},
        {"destination": "/full", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup", "size=1m"]},
        {"destination": "relative/to/root", "type": "tmpfs", "source": "tmpfs", "options": ["rro", "nodev", "noatime"]}]
    out = rt.run("/bin/sh", "-c", "cat /full/file; echo; touch /bind/x 2>/dev/null || echo refused; grep -E ' /(bind|relative/to/root) ' "
                 "/proc/self/mountinfo").stdout.splitlines()
    assert out[:2] == ["kept", "refused"]
    assert set("ro,nosuid,noexec".split(",")) <= set(out[2].split()[5].split(","))
    assert set("ro,nodev,noatime".split(",")) <= set(out[3].split()[5].split(","))


def test_idmapped_mount(rt, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_text("x")
    maps = [{"containerID": 0, "hostID": 70000, "size": 1000}]
    rt.spec["mounts"].append({"destination": "/data", "type": "bind", "source": str(source), "options": ["bind"],
                              "uidMappings": maps, "gidMappings": maps})
    out = rt.run("/bin/stat", "-c", "%u:%g", "/data/file", check=None)
    if out.returncode and "not every filesystem can" in out.stderr:
        pytest.skip("this filesystem has no idmapped mounts")
    assert out.stdout == "70000:70000\n"


def test_devices(rt):
    rt.spec["linux"]["devices"] = [{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o640, "uid": 3, "gid": 4},
                                   {"path": "/dev/queue", "type": "p"}]
    out = rt.run("/bin/sh", "-c", "stat -c '%a %u %g %t:%T' /dev/fuse; test -p /dev/queue && echo fifo; stat -c %t:%T /dev/null; "
                 "readlink /dev/ptmx").stdout.split("\n")
    assert out[:4] == ["640 3 4 a:e5", "fifo", "1:3", "pts/ptmx"]


def test_seccomp(rt):
    rt.spec["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"], "syscalls": [
        {"names": ["mkdir", "mkdirat", "no_such_call"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}]}
    for _ in range(2):  # the second time from the cache
        out = rt.run("/bin/busybox", "mkdir", "/tmp/x", check=1)
        assert "not implemented" in out.stderr
    assert list((rt.root / ".seccomp").iterdir())
    rt.start()
    assert "not implemented" in rt("exec", rt.id, "/bin/busybox", "mkdir", "/tmp/x", check=1).stderr


def test_hooks_in_order_with_the_state(rt, tmp_path):
    log = tmp_path / "log"
    hook = lambda kind, where: {"path": "/bin/sh", "args": ["sh", "-c", f"echo {kind} $(cat) >> {where}"], "env": ["PATH=/bin:/usr/bin"]}
    kinds = ("prestart", "createRuntime", "createContainer", "poststart", "poststop")
    rt.spec["hooks"] = {k: [hook(k, log)] for k in kinds}
    rt.spec["hooks"]["startContainer"] = [hook("startContainer", "/tmp/log")]
    rt.spec["annotations"] = {"a": "b"}
    rt.start()
    pid = rt.state()["pid"]
    rt("delete", "--force", rt.id)
    lines = [l.split(" ", 1) for l in log.read_text().splitlines()]
    assert [l[0] for l in lines] == list(kinds)
    states = {k: json.loads(s) for k, s in lines}
    states["startContainer"] = json.loads((rt.rootfs / "tmp/log").read_text().split(" ", 1)[1])
    assert {k: s["status"] for k, s in states.items()} == {
        "prestart": "creating", "createRuntime": "creating", "createContainer": "creating", "startContainer": "created",
        "poststart": "running", "poststop": "stopped"}
    assert all(s["id"] == rt.id and s["bundle"] == str(rt.dir) and s["annotations"] == {"a": "b"} for s in states.values())
    assert states["prestart"]["pid"] == states["poststart"]["pid"] == pid and "pid" not in states["poststop"]


@pytest.mark.parametrize("kind", ["prestart", "createRuntime", "createContainer", "startContainer"])
def test_hook_that_fails_leaves_nothing(rt, tmp_path, kind):
    rt.spec["hooks"] = {kind: [{"path": "/bin/sh", "args": ["sh", "-c", "echo broken >&2; exit 3"], "env": ["PATH=/bin"]}]}
    err = rt.run("/bin/true", check=1).stderr
    assert kind in err and "status 3" in err and "broken" in err
    assert rt.leftovers() == ([], [], [])


def test_hook_timeout(rt):
    rt.spec["hooks"] = {"createRuntime": [{"path": "/bin/sleep", "args": ["sleep", "60"], "timeout": 1}]}
    begin = time.monotonic()
    assert "timeout of 1 s" in rt.run("/bin/true", check=1).stderr
    assert time.monotonic() - begin < 30


@pytest.mark.parametrize("where,value,named", [
    (("ociVersion",), "3.0.0", "ociVersion"),
    (("root", "path"), "nosuch", "root.path"),
    (("process", "cwd"), "relative", "process.cwd"),
    (("process", "apparmorProfile"), "nosuch", "AppArmor"),
    (("process", "selinuxLabel"), "u:r:t:s0", "selinux"),
    (("linux", "sysctl"), {"kernel.panic": "1"}, "kernel.panic"),
    (("linux", "sysctl"), {"net.ipv4.no_such": "1"}, "net.ipv4.no_such"),
    (("linux", "rootfsPropagation"), "public", "rootfsPropagation"),
    (("linux", "seccomp"), {"defaultAction": "SCMP_ACT_NOTHING"}, "SCMP_ACT_NOTHING"),
    (("linux", "resources"), {"unified": {"memory.max": "1"}}, "unified"),
    (("linux", "uidMappings"), [{"containerID": 0, "hostID": 0, "size": 1}], "user namespace"),
])
def test_invalid_configuration_names_the_field(rt, where, value, named):
    if named == "unified" and os.path.exists("/sys/fs/cgroup/cgroup.controllers"):
        pytest.skip("cgroup version 2 has unified")
    at = rt.spec
    for key in where[:-1]:
        at = at[key]
    at[where[-1]] = value
    assert named in rt.run(check=1).stderr
    assert rt.leftovers() == ([], [], [])


def test_working_directory_that_root_alone_may_enter(rt):
    """Entered before capabilities go (root here has no CAP_DAC_OVERRIDE), else as the user, as runc does."""
    for uid, owner in ((0, 1000), (1000, 0), (1000, 1000)):
        (rt.rootfs / "tmp").chmod(0o700)
        os.chown(rt.rootfs / "tmp", owner, owner)
        rt.spec["process"].update(cwd="/tmp", user={"uid": uid, "gid": uid})
        assert rt.run("/bin/readlink", "/proc/self/cwd").stdout == "/tmp\n"


def test_exec_errors_are_not_the_program_s(rt):
    """runc-exec(8): 255 when the program could not be run, as its own failure is usually 1."""
    rt.start()
    assert rt("exec", rt.id, "/bin/sh", "-c", "exit 1", check=None).returncode == 1
    assert rt("exec", "--pid-file", "/no/such/folder/pid", rt.id, "/bin/true", check=None).returncode == 255
    assert rt("exec", rt.id, "/bin/no-such", check=None).returncode == 255
    rt("pause", rt.id)
    assert rt("exec", rt.id, "/bin/true", check=None).returncode == 255
    rt("resume", rt.id)


def test_smallest_memory_limit(rt):
    rt.spec["linux"]["resources"] = {"memory": {"limit": 512 << 10}}
    assert rt.run("/bin/echo", "fits").stdout == "fits\n"


def test_update_and_events(rt):
    rt.start()
    rt("update", "--memory", "32m", "--pids-limit", "9", rt.id)
    rt("update", "--resources", "-", rt.id, input='{"cpu":{"shares":100}}')
    event = json.loads(rt("events", "--stats", rt.id).stdout)
    assert event["type"] == "stats" and event["id"] == rt.id
    assert event["data"]["pids"]["limit"] == 9 and event["data"]["memory"]["usage"]["limit"] == 32 << 20


def test_features_and_spec(rt):
    features = json.loads(rt("features").stdout)
    assert "rro" in features["mountOptions"] and "time" in features["linux"]["namespaces"]
    rt("spec")
    spec = json.loads((rt.dir / "config.json").read_text())
    spec["process"].update(terminal=False, args=["/bin/echo", "default"])
    (rt.dir / "config.json").write_text(json.dumps(spec))
    assert rt("run", rt.id).stdout == "default\n"
    spaces = {n["type"] for n in spec["linux"]["namespaces"]}
    assert ("cgroup" in spaces) == os.path.exists("/sys/fs/cgroup/cgroup.controllers"), "as runc: not with version 1"


# ---- attacks ----

@pytest.mark.parametrize("how", ["run", "exec"])
def test_own_file_can_not_be_written(rt, tmp_path, how):
    """CVE-2019-5736: a script whose interpreter is the runtime, and a way to write to it afterwards."""
    mine = tmp_path / "walnut-runtime"
    shutil.copy(rt.exe, mine)
    rt.exe, before = str(mine), mine.read_bytes()
    (rt.rootfs / "bin/evil").write_text("#!/proc/self/exe\n")
    (rt.rootfs / "bin/evil").chmod(0o755)
    rt.spec["process"]["capabilities"] = {k: CAPS + ["CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE"] for k in ("bounding", "effective", "permitted")}
    watch = "for i in $(seq 300 2>/dev/null || echo 1 2 3); do for p in /proc/[0-9]*; do echo owned 2>/dev/null > $p/exe; done; done"
    if how == "run":
        rt.run("/bin/evil", check=None)
    else:
        rt.start("/bin/sh", "-c", f"while true; do {watch}; done")
        for _ in range(20):
            rt("exec", rt.id, "/bin/evil", check=None)
    assert mine.read_bytes() == before


def test_no_descriptor_of_the_host(rt):
    """CVE-2024-21626: a folder of the host as working directory through /proc/self/fd."""
    assert rt.run("/bin/ls", "/proc/self/fd").stdout.split() == ["0", "1", "2", "3"]
    for fd in range(3, 40):
        rt.spec["process"]["cwd"] = f"/proc/self/fd/{fd}"
        out = rt.run("/bin/ls", "-la", ".", check=None)
        assert out.returncode != 0, out.stdout
    rt.spec["process"]["cwd"] = "/"
    rt.start()
    for fd in range(3, 40):
        assert rt("exec", "--cwd", f"/proc/self/fd/{fd}", rt.id, "/bin/ls", check=None).returncode != 0


def test_waiting_process_holds_nothing_of_the_host(rt):
    """The first process of a created container: no descriptor but its streams and the start socket."""
    rt.args("/bin/true").write()
    rt.silent("create", rt.id)
    links = [os.readlink(p) for p in glob.glob(f"/proc/{rt.state()['pid']}/fd/*")]
    assert all(l.startswith(("socket:", "/dev/null", str(rt.dir))) for l in links)
    assert len([l for l in links if l.startswith("socket:")]) == 1


def test_mount_target_through_a_link_stays_inside(rt, tmp_path):
    """CVE-2021-30465 and others: a link in the image to a folder of the host."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (rt.rootfs / "link").symlink_to(outside)
    (rt.rootfs / "up").symlink_to("../../../../../../../../../../" + str(outside))
    rt.spec["mounts"] += [{"destination": f"/{n}/made", "type": "tmpfs", "source": "tmpfs"} for n in ("link", "up")]
    rt.run("/bin/true", check=None)
    assert not list(outside.iterdir())


def test_link_at_dev_null_does_not_unmask(rt):
    """CVE-2025-31133: /dev/null of the image as a link, so that masking mounts something else."""
    rt.spec["mounts"] = [m for m in rt.spec["mounts"] if not m["destination"].startswith("/dev")]
    (rt.rootfs / "dev/null").symlink_to("/proc/sys/kernel/core_pattern")
    out = rt.run("/bin/true", check=1).stderr
    assert "/dev/null" in out


def test_link_at_dev_console(rt, tmp_path):
    """CVE-2025-52565: /dev/console as a link out of the root."""
    target = tmp_path / "host-file"
    target.write_text("host")
    rt.spec["mounts"] = [m for m in rt.spec["mounts"] if m["destination"] != "/dev"]
    (rt.rootfs / "dev/console").symlink_to(target)
    rt.spec["process"]["terminal"] = True
    rt.run("/bin/true", check=None)
    assert target.read_text() == "host"


def test_proc_must_be_proc(rt, tmp_path):
    """CVE-2019-16884, CVE-2025-52881: a false /proc would take what protects the container."""
    for mount, named in (({"destination": "/proc", "type": "bind", "source": str(tmp_path), "options": ["bind"]}, "not of type proc"),
                         ({"destination": "/proc/sys", "type": "tmpfs", "source": "tmpfs"}, "inside /proc"),
                         ({"destination": "/proc/self/attr", "type": "tmpfs", "source": "tmpfs"}, "inside /proc")):
        rt.spec["mounts"] = [{"destination": "/proc", "type": "proc", "source": "proc"}, mount]
        assert named in rt.run(check=1).stderr
    rt.spec["mounts"], rt.spec["linux"]["sysctl"] = [], {"net.ipv4.ip_forward": "1"}
    (rt.rootfs / "proc/sys/net/ipv4").mkdir(parents=True)
    (rt.rootfs / "proc/sys/net/ipv4/ip_forward").write_text("0")
    assert "sysctl" in rt.run(check=1).stderr
    assert (rt.rootfs / "proc/sys/net/ipv4/ip_forward").read_text() == "0"


def test_exec_user_is_a_number(rt):
    """CVE-2026-30892 of crun: "1x" must not be user 1, nor 0."""
    rt.start()
    for user in ("1x", "x", "-1", "4294967296", "1:", "0x10"):
        assert "number" in rt("exec", "--user", user, rt.id, "/bin/id", check=255).stderr


def test_set_up_process_can_not_be_traced(rt):
    """CVE-2016-9962: between clone and exec the process belongs to the host's root, and is not dumpable."""
    rt.args("/bin/true").write()
    rt.silent("create", rt.id)
    assert os.stat(f"/proc/{rt.state()['pid']}/exe", follow_symlinks=False).st_uid == 0


def test_inheritable_capabilities_stay_empty(rt):
    """CVE-2022-29162 of runc: capabilities that are not asked for as inheritable are not."""
    rt.start()
    out = rt("exec", rt.id, "/bin/grep", "CapInh", "/proc/self/status").stdout
    assert int(out.split()[1], 16) == 0
