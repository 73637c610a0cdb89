# SPDX-License-Identifier: Apache-2.0
"""One engine for the session, on temporary roots and its own socket, driven by the stock docker client.

A test that takes `run` or `iso` is run once for each isolation. A virtual machine takes about two seconds to start
without /dev/kvm, so hyperv leaves out variants that HYPERV_VARIANTS does not name, and runs all with WALNUT_TEST_FULL=1; what
it leaves out is counted as skipped. Nothing else is skipped, except what SKIPPED and DEFECTS name with a reason. A test of DEFECTS is
expected to fail, fails the run when it passes, and is counted as skipped. What leaks is reported at the end of the session.
"""
import contextlib
import glob
import http.client
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import io
import tempfile
import threading
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("BUILD", ROOT / "build")).resolve()
sys.path.insert(0, str(ROOT / "tests" / "images"))
import docker_archive  # noqa: E402

IMAGE = "walnut-test/busybox:1"

# hyperv runs every test; of these, whose variants differ in what has nothing to do with the isolation, only the ones named.
HYPERV_VARIANTS = {
    "test_exit_code": {"3", "255"},
    "test_user": {"ada-1000 1000", "5:6-5 6"},
    "test_exit_status": {"command1-7"},
    "test_option_is_honoured_or_refused_by_name": set(),
}
# "file.py::test_name" or "file.py::test_name[parameters]": reason.
SKIPPED = {}
DEFECTS = {}


def pytest_collection_modifyitems(items):
    for item in items:
        params = getattr(item, "callspec", None)
        iso = params.params.get("iso") if params else None
        variant = params.id.removeprefix(f"{iso}-").removesuffix(f"-{iso}") if params else ""
        some = HYPERV_VARIANTS.get(item.originalname)
        if iso == "hyperv" and some is not None and variant not in some and not os.environ.get("WALNUT_TEST_FULL"):
            item.add_marker(pytest.mark.skip(reason="hyperv: a variant that process runs; WALNUT_TEST_FULL=1 runs it too"))
        for key in (item.path.name + "::" + item.originalname, item.path.name + "::" + item.name):
            if key in SKIPPED:
                item.add_marker(pytest.mark.skip(reason=SKIPPED[key]))
            if key in DEFECTS:
                item.add_marker(pytest.mark.xfail(strict=True, reason="product defect: " + DEFECTS[key]))


def busybox_layer(path):
    """A small root file system: Debian's static busybox, users, a few folders."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        def add(name, kind=tarfile.DIRTYPE, mode=0o755, data=b"", link=""):
            info = tarfile.TarInfo(name)
            info.type, info.mode, info.linkname, info.size, info.mtime = kind, mode, link, len(data), 1686355200
            tar.addfile(info, io.BytesIO(data))
        for folder in ("bin", "etc", "proc", "sys", "dev", "root", "var", "home", "home/ada", "usr", "usr/bin"):
            add(folder)
        add("tmp", mode=0o1777)
        add("bin/busybox", tarfile.REGTYPE, 0o755, pathlib.Path("/bin/busybox").read_bytes())
        applets = subprocess.run(["/bin/busybox", "--list"], capture_output=True, text=True, check=True).stdout.split()
        for applet in applets:
            if applet != "busybox":
                add("bin/" + applet, tarfile.SYMTYPE, 0o777, link="busybox")
        add("etc/passwd", tarfile.REGTYPE, 0o644, b"root:x:0:0:root:/root:/bin/sh\nada:x:1000:1000::/home/ada:/bin/sh\n"
            b"nobody:x:65534:65534::/:/bin/false\n")
        add("etc/group", tarfile.REGTYPE, 0o644, b"root:x:0:\nada:x:1000:\nextra:x:2000:ada\nnogroup:x:65534:\n")
        add("etc/os-release", tarfile.REGTYPE, 0o644, b'PRETTY_NAME="walnut test"\nID=walnut-test\n')
        add("etc/not-executable", tarfile.REGTYPE, 0o644, b"plain\n")


class Result:
    def __init__(self, done):
        self.code, self.out, self.err = done.returncode, done.stdout, done.stderr
        if isinstance(self.err, bytes):
            self.err = self.err.decode(errors="replace")
        self.args = done.args

    def __repr__(self):
        return f"{self.args}: exit status {self.code}\nstdout: {self.out!r}\nstderr: {self.err!r}"


class Engine:
    def __init__(self):
        self.root = tempfile.mkdtemp(prefix="walnut-test-", dir="/var/tmp")
        # Short: the sockets of the shims are below it, and a socket's path has at most 107 characters.
        self.exec_root = tempfile.mkdtemp(prefix="wt", dir="/run")
        self.socket = self.root + "/walnut.sock"
        self.docker_config = self.root + "/docker-config"
        os.mkdir(self.docker_config)
        self.roots = (self.root, self.exec_root)
        self.ids = set()
        self.watcher = None
        self.process = None
        self.log = open(self.root + "/walnutd.log", "ab")
        self.hyperv_reason = None

    def env(self):
        env = {k: v for k, v in os.environ.items() if not k.startswith("DOCKER_")}
        env.update(DOCKER_HOST="unix://" + self.socket, DOCKER_CONFIG=self.docker_config)
        return env

    def start(self, *options):
        self.process = subprocess.Popen(
            [str(BUILD / "walnutd"), "--host", "unix://" + self.socket, "--data-root", self.root + "/data",
             "--exec-root", self.exec_root, "--accelerator", os.environ.get("WALNUT_TEST_ACCELERATOR", "auto"), *options],
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            if os.path.exists(self.socket) and self.docker("version", timeout=10).code == 0:
                if not self.watcher:
                    self.watcher = threading.Thread(target=self.watch, args=(time.time(),), daemon=True)
                    self.watcher.start()
                return
            time.sleep(0.05)
        raise RuntimeError(f"walnutd does not start (status {self.process.poll()}): " + self.log_tail())

    def watch(self, since):
        """Collects the ids of all containers that are made, over restarts of the engine: traces() looks for them."""
        while os.path.isdir(self.docker_config):
            events = self.popen("events", "--since", f"{since:.6f}", "--filter", "type=container", "--filter", "event=create",
                                "--format", "{{.Actor.ID}}", stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            self.ids.update(line.strip() for line in events.stdout)
            events.wait()
            time.sleep(0.2)

    def remove(self):
        """Removes its folders; it must have been stopped."""
        self.log.close()
        if os.environ.get("WALNUT_TEST_KEEP"):
            print("kept:", self.root)
            return
        shutil.rmtree(self.root, ignore_errors=True)
        shutil.rmtree(self.exec_root, ignore_errors=True)

    def log_tail(self):
        self.log.flush()
        return "\n".join(pathlib.Path(self.root + "/walnutd.log").read_text(errors="replace").splitlines()[-15:])

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                return False
        return True

    def docker(self, *args, input=None, timeout=120, text=True):
        return Result(subprocess.run(["docker", *map(str, args)], env=self.env(), capture_output=True, input=input,
                                     stdin=subprocess.DEVNULL if input is None else None, text=text, timeout=timeout))

    def popen(self, *args, **kw):
        return subprocess.Popen(["docker", *map(str, args)], env=self.env(), **kw)

    def api(self, method, path, body=None):
        """One request of the Docker API, for what no client's flag can say -> (status, decoded answer or text)."""
        connection = http.client.HTTPConnection("localhost", timeout=120)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(120)
        connection.sock.connect(self.socket)
        with contextlib.closing(connection):
            connection.request(method, "/v1.47" + path, None if body is None else json.dumps(body),
                               {"Content-Type": "application/json"})
            answer = connection.getresponse()
            text = answer.read().decode()
        return answer.status, json.loads(text) if text[:1] in ("{", "[") else text

    def ok(self, *args, **kw):
        """Run docker, which must succeed; gives its standard output."""
        result = self.docker(*args, **kw)
        assert result.code == 0, result
        return result.out.strip() if isinstance(result.out, str) else result.out

    def inspect(self, name, template=None):
        out = self.ok("inspect", name)
        return json.loads(out)[0]

    def load(self, path):
        return self.ok("load", "-i", path, timeout=600)


def read_text(path):
    try:
        return pathlib.Path(path).read_text(errors="replace")
    except OSError:
        return ""


def process_traces(engine):
    """Processes that name a folder of the engine, or are in the cgroup of one of its containers."""
    for folder in glob.glob("/proc/[0-9]*"):
        line = read_text(folder + "/cmdline").replace("\0", " ").strip()
        ours = any(root in line for root in engine.roots)
        if not ours and engine.ids:
            ours = any(i in read_text(folder + "/cgroup") for i in engine.ids)
        if ours and int(folder.split("/")[2]) != os.getpid():
            yield f"process {folder.split('/')[2]}: {line[:120]}"


def mount_traces(engine):
    """Mounts below the engine's folders, in any mount namespace that a process holds."""
    namespaces = set()
    for folder in ["/proc/self", *glob.glob("/proc/[0-9]*")]:
        try:
            namespace = os.readlink(folder + "/ns/mnt")
        except OSError:
            continue
        if namespace in namespaces:
            continue
        namespaces.add(namespace)
        for line in read_text(folder + "/mountinfo").splitlines():
            if line.split()[4].startswith(engine.roots):
                yield f"mount {line.split()[4]} in {namespace}"


def traces(engine):
    """What must not be left by an engine that has ended and whose containers were removed.

    Only what is its own, by folder and container id, so that others on the same machine do not matter: processes,
    mounts, loop devices, cgroups, bound sockets, folders of containers and staging.
    """
    found = set(process_traces(engine)) | set(mount_traces(engine))
    for backing in glob.glob("/sys/block/loop*/loop/backing_file"):
        if read_text(backing).startswith(engine.roots):
            found.add(f"loop device {backing.split('/')[3]} of {read_text(backing).strip()}")
    for path, _, _ in os.walk("/sys/fs/cgroup"):
        if any(i in os.path.basename(path) for i in engine.ids):
            found.add("cgroup " + path)
    for line in read_text("/proc/net/unix").splitlines():
        if any(root in line for root in engine.roots):
            found.add("socket " + line.split()[-1])
    for pattern in ("containers/*", "tmp/*"):
        for root in (engine.root + "/data/", engine.exec_root + "/"):
            found.update("folder " + p for p in glob.glob(root + pattern))
    return found


def traces_in_time(engine, seconds=15):
    """traces(), after what ends by itself had time to."""
    deadline = time.monotonic() + seconds
    while (left := traces(engine)) and time.monotonic() < deadline:
        time.sleep(0.2)
    return left


@pytest.fixture(scope="session")
def engine():
    e = Engine()
    try:
        e.start()
        layer, image = e.root + "/layer.tar", e.root + "/image.tar"
        busybox_layer(layer)
        e.image_id = docker_archive.make(image, IMAGE, [layer])
        e.image_archive = image
        loaded = e.docker("load", "-i", image, timeout=300)
        if loaded.code != 0:
            pytest.fail(f"the test image does not load: {loaded}\n{e.log_tail()}")
        yield e
        for container in e.docker("ps", "-aq").out.split():
            e.docker("rm", "-f", container)
        clean_stop = e.stop()
        left = traces_in_time(e)
        assert clean_stop, "walnutd did not end within 20 s of SIGTERM"
        assert not left, f"left behind: {sorted(left)}"
    finally:
        e.stop()
        e.remove()


def hyperv_available(engine):
    """None, or the engine's reason why hyperv cannot run here."""
    if engine.hyperv_reason is None:
        result = engine.docker("run", "--rm", "--isolation=hyperv", IMAGE, "true", timeout=120)
        if result.code == 0:
            engine.hyperv_reason = ""
        else:
            lines = result.err.strip().splitlines()
            engine.hyperv_reason = (lines[0] if lines else f"exit status {result.code}")[:300]
    return engine.hyperv_reason


@pytest.fixture(params=["process", "hyperv"])
def iso(request, engine):
    if request.param == "hyperv":
        reason = hyperv_available(engine)
        if reason:
            pytest.fail("hyperv: " + reason)
    return request.param


@pytest.fixture
def run(engine, iso):
    """run(options and command) -> Result of docker run --rm --isolation=..., with the test image put before the command.

    Options come first, then the image marker `...` (Ellipsis), then the command: run("-i", ..., "cat").
    """
    def run(*args, check=None, **kw):
        args = list(args)
        if ... in args:
            args[args.index(...)] = IMAGE
        else:
            args.insert(0, IMAGE)
        rm = [] if "--rm" in args or "-d" in args else ["--rm"]
        result = engine.docker("run", *rm, "--isolation=" + iso, *args, **kw)
        if check is not None:
            assert result.code == check, result
        return result
    return run


@pytest.fixture
def container(engine, iso, request):
    """container(options..., ..., command) -> id of a detached container that is removed after the test."""
    made = []

    def make(*args):
        args = list(args)
        if ... in args:
            args[args.index(...)] = IMAGE
        else:
            args.insert(0, IMAGE)
        made.append(engine.ok("run", "-d", "--isolation=" + iso, *args))
        return made[-1]
    yield make
    for c in made:
        engine.docker("rm", "-f", c)
