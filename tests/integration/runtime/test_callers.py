# SPDX-License-Identifier: Apache-2.0
"""The runtime under those who call it: podman (conmon), containerd (its runc shim) and dockerd, each with folders,
sockets and cgroups of its own, and without networks. What is expected is what runc and crun do under them.
"""
import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time

import pytest

from test_runtime import APPLETS, program

CGROUP = f"walnut-callers-{os.getpid()}"


def need(*names):
    for name in names:
        if not shutil.which(name):
            pytest.skip(f"{name} is not installed")


def run(args, env=None, **options):
    options = {"capture_output": True, "text": True, "timeout": 120, **options}
    return subprocess.run([str(a) for a in args], env={**os.environ, **(env or {})}, **options)


@pytest.fixture(scope="module")
def place():
    folder = pathlib.Path(tempfile.mkdtemp(prefix="wc-", dir="/tmp"))
    rootfs = folder / "rootfs"
    for name in ("bin", "proc", "dev", "sys", "tmp", "etc"):
        (rootfs / name).mkdir(parents=True)
    shutil.copy(shutil.which("busybox"), rootfs / "bin/busybox")
    for name in APPLETS:
        (rootfs / "bin" / name).symlink_to("busybox")
    subprocess.run(["tar", "-C", rootfs, "-cf", folder / "image.tar", "."], check=True)
    yield folder
    for parent in list(pathlib.Path("/sys/fs/cgroup").glob(f"{CGROUP}*")) + list(
            pathlib.Path("/sys/fs/cgroup").glob(f"*/{CGROUP}*")):
        for path, _, _ in os.walk(parent, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(path)
    shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def daemon(args, log, ready):
    """A daemon of ours, until the end of the block; it is ready when @ready() succeeds."""
    with open(log, "wb") as out:
        process = subprocess.Popen([str(a) for a in args], stdout=out, stderr=out, stdin=subprocess.DEVNULL,
                                   start_new_session=True)
    try:
        for _ in range(300):
            if ready():
                break
            assert process.poll() is None, pathlib.Path(log).read_text()[-2000:]
            time.sleep(0.1)
        else:
            pytest.fail(f"{args[0]} is not ready: " + pathlib.Path(log).read_text()[-2000:])
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def podman(place):
    need("podman", "conmon")
    base = place / "podman"
    base.mkdir()
    runtime = base / "walnut-runtime"
    shutil.copy(program(), runtime)
    (base / "containers.conf").write_text("""[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime_supports_json = ["walnut-runtime"]
runtime_supports_nocgroups = ["walnut-runtime"]
[containers]
netns = "none"
log_driver = "k8s-file"
cgroupns = "private"
default_ulimits = ["nofile=1024:4096", "nproc=1024:2048"]
""")
    (base / "storage.conf").write_text(f'[storage]\ndriver = "vfs"\ngraphroot = "{base}/graph"\nrunroot = "{base}/run"\n')
    env = {"CONTAINERS_CONF": str(base / "containers.conf"), "CONTAINERS_STORAGE_CONF": str(base / "storage.conf")}

    def call(*args, **options):
        return run(["podman", "--runtime", runtime, "--tmpdir", base / "tmp", *args], env, **options)
    done = call("import", place / "image.tar", "bb:1")
    if done.returncode:
        pytest.skip("podman can not import an image here: " + done.stderr[-300:])
    yield call
    call("pod", "rm", "-fa", "-t", "0")
    call("rm", "-fa", "-t", "0")


PARENT = ("--cgroup-parent", f"/{CGROUP}-podman")


def test_podman_run(podman):
    done = podman("run", "--rm", *PARENT, "bb:1", "echo", "hello")
    assert (done.returncode, done.stdout) == (0, "hello\n"), done.stderr
    assert podman("run", "--rm", *PARENT, "bb:1", "sh", "-c", "exit 7").returncode == 7
    assert podman("run", "--rm", *PARENT, "bb:1", "no-such-program").returncode == 127
    assert podman("run", "--rm", *PARENT, "bb:1", "/etc").returncode == 126
    done = podman("run", "--rm", "-i", *PARENT, "bb:1", "cat", input="through")
    assert done.stdout == "through"


def test_podman_terminal(podman):
    done = podman("run", "--rm", "-t", *PARENT, "bb:1", "sh", "-c", "test -t 0 && tty; exit 3", stdin=subprocess.DEVNULL)
    assert done.returncode == 3 and "/dev/" in done.stdout, done.stderr


def test_podman_life(podman):
    done = podman("run", "-d", "--name", "life", *PARENT, "bb:1", "sleep", "1000")
    assert done.returncode == 0, done.stderr
    assert podman("exec", "life", "sh", "-c", "exit 5").returncode == 5
    assert podman("exec", "-u", "7:8", "life", "id").stdout.startswith("uid=7 gid=8")
    assert podman("exec", "-t", "life", "true", stdin=subprocess.DEVNULL).returncode == 0
    assert podman("pause", "life").returncode == 0
    assert podman("inspect", "-f", "{{.State.Status}}", "life").stdout.strip() == "paused"
    assert podman("unpause", "life").returncode == 0
    assert podman("stats", "--no-stream", "--format", "{{.PIDs}}", "life").stdout.strip() == "1"
    assert podman("update", "--memory", "64m", "life").returncode == 0
    assert "sleep 1000" in podman("top", "life").stdout
    assert podman("restart", "-t", "1", "life").returncode == 0
    assert podman("exec", "life", "true").returncode == 0
    assert podman("stop", "-t", "1", "life").returncode == 0
    assert podman("inspect", "-f", "{{.State.ExitCode}}", "life").stdout.strip() == "137"
    assert podman("start", "life").returncode == 0
    assert podman("rm", "-f", "-t", "0", "life").returncode == 0


def test_podman_limits_and_volumes(podman, place):
    (place / "shared").mkdir(exist_ok=True)
    done = podman("run", "--rm", *PARENT, "-v", f"{place}/shared:/mnt", "--tmpfs", "/x:rw,size=1m", "--memory", "32m",
                  "--pids-limit", "20", "--cpus", "0.5", "--read-only", "bb:1", "sh", "-c",
                  "echo kept > /mnt/file; touch /y 2>/dev/null || echo read-only; touch /x/y && echo writable")
    assert done.stdout.split() == ["read-only", "writable"], done.stderr
    assert (place / "shared/file").read_text() == "kept\n"


def test_podman_user_namespaces(podman):
    mapped = ("--uidmap", "0:100000:65536", "--gidmap", "0:100000:65536")
    done = podman("run", "--rm", *PARENT, *mapped, "bb:1", "sh", "-c", "id -u; cat /proc/self/uid_map")
    assert done.returncode == 0 and done.stdout.split() == ["0", "0", "100000", "65536"], done.stderr
    done = podman("run", "-d", "--name", "mapped", *PARENT, *mapped, "bb:1", "sleep", "100")
    assert done.returncode == 0, done.stderr
    assert podman("exec", "mapped", "id", "-u").stdout == "0\n"
    assert podman("rm", "-f", "-t", "0", "mapped").returncode == 0


def test_podman_pod_shares_namespaces(podman):
    done = podman("pod", "create", "--infra=false", "--name", "pod")
    if done.returncode:
        pytest.skip("podman can make no pod here: " + done.stderr[-300:])
    for name in ("one", "two"):
        done = podman("run", "-d", "--pod", "pod", "--name", name, "bb:1", "sleep", "100")
        assert done.returncode == 0, done.stderr
    assert podman("exec", "two", "echo", "in").stdout == "in\n"
    assert podman("pod", "rm", "-f", "-t", "0", "pod").returncode == 0


def test_podman_health(podman):
    done = podman("run", "-d", "--name", "health", *PARENT, "--health-cmd", "test -f /tmp/well", "--health-interval",
                  "disable", "bb:1", "sleep", "100")
    assert done.returncode == 0, done.stderr
    assert podman("healthcheck", "run", "health").returncode == 1
    assert podman("exec", "health", "touch", "/tmp/well").returncode == 0
    assert podman("healthcheck", "run", "health").returncode == 0
    assert podman("rm", "-f", "-t", "0", "health").returncode == 0


@pytest.fixture(scope="module")
def containerd(place):
    need("containerd", "ctr", "containerd-shim-runc-v2")
    base = place / "ctrd"
    base.mkdir()
    address = base / "c.sock"
    (base / "config.toml").write_text(f"""version = 2
root = "{base}/root"
state = "{base}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
  address = "{address}"
[ttrpc]
  address = "{address}.ttrpc"
""")
    with daemon(["containerd", "-c", base / "config.toml"], base / "log",
                lambda: address.exists() and run(["ctr", "-a", address, "version"]).returncode == 0):
        yield address


@pytest.fixture(scope="module")
def ctr(containerd, place):
    return lambda *args, **options: run(["ctr", "-a", containerd, *args], **options)


def ctr_run(ctr, place, name, *command, options=()):
    return ctr("run", *options, "--rootfs", "--runc-binary", program(), "--cgroup", f"/{CGROUP}-ctr/{name}",
               place / "rootfs", name, *command, stdin=subprocess.DEVNULL)


def test_containerd_run(ctr, place):
    done = ctr_run(ctr, place, "t1", "/bin/echo", "hello", options=["--rm"])
    assert (done.returncode, done.stdout) == (0, "hello\n"), done.stderr
    assert ctr_run(ctr, place, "t2", "/bin/sh", "-c", "exit 9", options=["--rm"]).returncode == 9
    done = ctr_run(ctr, place, "t3", "no-such-program", options=["--rm"])
    assert done.returncode == 1 and 'exec: "no-such-program": executable file not found in $PATH' in done.stderr


def test_containerd_life(ctr, place):
    done = ctr_run(ctr, place, "life", "/bin/sleep", "100", options=["-d", "--memory-limit", "33554432"])
    assert done.returncode == 0, done.stderr
    assert ctr("task", "exec", "--exec-id", "e1", "life", "/bin/sh", "-c", "exit 5").returncode == 5
    done = run(["script", "-qec", f"ctr -a {place}/ctrd/c.sock task exec -t --exec-id e2 life /bin/sh -c 'exit 6'",
                "/dev/null"], stdin=subprocess.DEVNULL)
    assert done.returncode == 6
    assert "33554432" in ctr("task", "metrics", "life").stdout
    assert ctr("task", "pause", "life").returncode == 0 and "PAUSED" in ctr("task", "ls").stdout
    assert ctr("task", "resume", "life").returncode == 0 and "RUNNING" in ctr("task", "ls").stdout
    assert ctr("task", "kill", "-s", "SIGKILL", "life").returncode == 0
    for _ in range(100):
        if "STOPPED" in ctr("task", "ls").stdout:
            break
        time.sleep(0.1)
    assert "exit code 137" in ctr("task", "rm", "life").stderr
    assert ctr("c", "rm", "life").returncode == 0


@pytest.fixture(scope="module")
def docker(containerd, place):
    need("dockerd", "docker")
    base = place / "dk"
    base.mkdir()
    socket = base / "d.sock"

    def call(*args, **options):
        return run(["docker", "-H", f"unix://{socket}", *args], **{"stdin": subprocess.DEVNULL, **options})
    args = ["dockerd", "-H", f"unix://{socket}", "--data-root", base / "data", "--exec-root", base / "exec", "-p",
            base / "pid", "--containerd", containerd, "--bridge", "none", "--iptables=false", "--ip6tables=false",
            "--storage-driver", "vfs", "--add-runtime", f"walnut={program()}", "--default-runtime", "walnut",
            "--cgroup-parent", f"/{CGROUP}-dockerd", "--default-ulimit", "nofile=1024:4096"]
    with daemon(args, base / "log", lambda: socket.exists() and call("version").returncode == 0):
        done = call("import", place / "image.tar", "bb:1")
        assert done.returncode == 0, done.stderr
        yield call
        names = call("ps", "-aq").stdout.split()
        if names:
            call("rm", "-f", *names)


NONE = ("--network", "none")


def test_dockerd_run(docker):
    done = docker("run", "--rm", *NONE, "bb:1", "echo", "hello")
    assert (done.returncode, done.stdout) == (0, "hello\n"), done.stderr
    done = docker("run", "--rm", *NONE, "bb:1", "no-such-program")
    assert done.returncode == 127 and "executable file not found in $PATH" in done.stderr
    assert docker("run", "--rm", *NONE, "bb:1", "/etc").returncode == 126
    assert docker("run", "--rm", "-t", *NONE, "bb:1", "sh", "-c", "exit 9").returncode == 9
    assert docker("run", "--rm", *NONE, "--privileged", "bb:1", "test", "-e", "/dev/kmsg").returncode == 0
    assert docker("run", "--rm", *NONE, "--pid", "host", "--ipc", "host", "--uts", "host", "bb:1", "true").returncode == 0


def test_dockerd_hardened(docker, place):
    done = docker("run", "--rm", *NONE, "-v", f"{place}/rootfs:/mnt:ro", "--tmpfs", "/x", "--read-only", "--cap-drop", "ALL",
                  "--security-opt", "no-new-privileges", "bb:1", "sh", "-c",
                  "test -d /mnt/bin && echo volume; touch /y 2>/dev/null || echo read-only; touch /x/y && echo writable;"
                  "grep -c '^CapEff:.0*$' /proc/self/status; mount -t tmpfs t /tmp 2>/dev/null || echo filtered")
    assert done.stdout.split() == ["volume", "read-only", "writable", "1", "filtered"], done.stderr


def test_dockerd_life(docker):
    done = docker("run", "-d", "--name", "life", *NONE, "--memory", "32m", "--pids-limit", "50", "--cpus", "0.5",
                  "--cpuset-cpus", "0", "bb:1", "sleep", "100")
    assert done.returncode == 0, done.stderr
    assert docker("exec", "-u", "7:8", "life", "id").stdout.startswith("uid=7 gid=8")
    assert docker("exec", "-t", "life", "sh", "-c", "exit 6").returncode == 6
    assert "32MiB" in docker("stats", "--no-stream", "--format", "{{.MemUsage}}", "life").stdout
    done = docker("update", "--memory", "48m", "--memory-swap", "48m", "life")
    assert done.returncode == 0, done.stderr
    assert "48MiB" in docker("stats", "--no-stream", "--format", "{{.MemUsage}}", "life").stdout
    assert docker("pause", "life").returncode == 0
    assert "Paused" in docker("ps", "--format", "{{.Status}}").stdout
    assert docker("unpause", "life").returncode == 0
    assert "sleep 100" in docker("top", "life").stdout
    assert docker("restart", "-t", "1", "life").returncode == 0
    assert docker("stop", "-t", "1", "life").returncode == 0
    assert docker("inspect", "-f", "{{.State.ExitCode}}", "life").stdout.strip() == "137"
    assert docker("rm", "life").returncode == 0


def test_dockerd_out_of_memory(docker):
    docker("run", "--name", "oom", *NONE, "--memory", "16m", "--memory-swap", "16m", "bb:1", "sh", "-c",
           "dd if=/dev/zero of=/dev/null bs=64M count=1")
    assert docker("inspect", "-f", "{{.State.OOMKilled}}", "oom").stdout.strip() == "true"
    assert docker("rm", "oom").returncode == 0


def test_dockerd_health(docker):
    assert docker("run", "-d", "--name", "health", *NONE, "--health-cmd", "true", "--health-interval", "1s", "bb:1", "sleep",
                  "50").returncode == 0
    for _ in range(100):
        status = docker("inspect", "-f", "{{.State.Health.Status}}", "health").stdout.strip()
        if status == "healthy":
            break
        time.sleep(0.2)
    assert status == "healthy"
    assert docker("rm", "-f", "health").returncode == 0
