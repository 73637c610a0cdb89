# SPDX-License-Identifier: Apache-2.0
"""One engine for the session, on temporary roots and its own socket, driven by the stock docker client.

A test that takes `run` or `iso` is run once for each isolation. hyperv is skipped, with the engine's own
sentence, where the engine says that it cannot run it. A test whose feature the engine refuses as "not built yet"
is skipped with that sentence: refusal is what it promises. What leaks is reported at the end of the session.
"""
import glob
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tarfile
import io
import tempfile
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("BUILD", ROOT / "build")).resolve()
sys.path.insert(0, str(ROOT / "tests" / "images"))
import docker_archive  # noqa: E402

IMAGE = "walnut-test/busybox:1"
NOT_BUILT = ("not built yet", "not implemented yet", "is not built", "not supported yet", "available in this build")


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


def skip_if_not_built(result):
    if result.code != 0:
        for text in NOT_BUILT:
            if text in result.err:
                pytest.skip(result.err.strip().splitlines()[-1][:200])


class Engine:
    def __init__(self):
        self.root = tempfile.mkdtemp(prefix="walnut-test-", dir="/var/tmp")
        self.socket = self.root + "/walnut.sock"
        self.docker_config = self.root + "/docker-config"
        os.mkdir(self.docker_config)
        self.process = None
        self.log = open(self.root + "/walnutd.log", "ab")
        self.hyperv_reason = None
        self.extra = []  # options of every run and create

    def env(self):
        env = {k: v for k, v in os.environ.items() if not k.startswith("DOCKER_")}
        env.update(DOCKER_HOST="unix://" + self.socket, DOCKER_CONFIG=self.docker_config)
        return env

    def start(self, *options):
        self.process = subprocess.Popen(
            [str(BUILD / "walnutd"), "--host", "unix://" + self.socket, "--data-root", self.root + "/data",
             "--exec-root", self.root + "/run", *options],
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            if os.path.exists(self.socket) and self.docker("version", timeout=10).code == 0:
                return
            time.sleep(0.05)
        raise RuntimeError(f"walnutd does not start (status {self.process.poll()}): " + self.log_tail())

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
        if args[0] in ("run", "create"):
            args = (args[0], *self.extra, *args[1:])
        return Result(subprocess.run(["docker", *map(str, args)], env=self.env(), capture_output=True, input=input,
                                     stdin=subprocess.DEVNULL if input is None else None, text=text, timeout=timeout))

    def popen(self, *args, **kw):
        return subprocess.Popen(["docker", *map(str, args)], env=self.env(), **kw)

    def ok(self, *args, **kw):
        """Run docker, skip when the engine says "not built yet", fail on any other error."""
        result = self.docker(*args, **kw)
        skip_if_not_built(result)
        assert result.code == 0, result
        return result.out.strip() if isinstance(result.out, str) else result.out

    def inspect(self, name, template=None):
        out = self.ok("inspect", name)
        return json.loads(out)[0]

    def load(self, path):
        return self.ok("load", "-i", path, timeout=600)


def traces():
    """What must not be left behind: mounts, loop devices, cgroups, processes."""
    found = set()
    with open("/proc/self/mountinfo") as f:
        for line in f:
            if "/walnut" in line.split()[4]:
                found.add("mount " + line.split()[4])
    for backing in glob.glob("/sys/block/loop*/loop/backing_file"):
        try:
            text = pathlib.Path(backing).read_text().strip()
        except OSError:
            continue
        if "/walnut-test-" in text or "walnut" in text:
            found.add("loop device of " + text)
    for path in glob.glob("/sys/fs/cgroup/walnut/*/") + glob.glob("/sys/fs/cgroup/*/walnut/*/"):
        found.add("cgroup " + path)
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        try:
            args = pathlib.Path(path).read_bytes().split(b"\0")
        except OSError:
            continue
        program = os.path.basename(args[0].decode(errors="replace"))
        joined = b" ".join(args)
        if b"/var/tmp/walnut-test-" in joined and (program.startswith("walnut") or program.startswith("qemu-system")):
            found.add(f"process {path.split('/')[2]} {program}")
    return found


@pytest.fixture(scope="session")
def engine():
    if not (BUILD / "walnutd").exists():
        pytest.skip("not built yet: walnutd")
    before = traces()
    e = Engine()
    try:
        e.start()
        layer, image = e.root + "/layer.tar", e.root + "/image.tar"
        busybox_layer(layer)
        e.image_id = docker_archive.make(image, IMAGE, [layer])
        e.image_archive = image
        loaded = e.docker("load", "-i", image, timeout=300)
        if loaded.code != 0:
            skip_if_not_built(loaded)
            pytest.fail(f"the test image does not load: {loaded}\n{e.log_tail()}")
        # While the default seccomp profile is not built the engine refuses to run without being told so. The other tests
        # then say "unconfined" aloud; test_seccomp_is_on is skipped with the reason.
        if "seccomp=unconfined" in e.docker("run", "--rm", "--isolation=process", IMAGE, "true").err:
            e.extra = ["--security-opt", "seccomp=unconfined"]
        yield e
        for container in e.docker("ps", "-aq").out.split():
            e.docker("rm", "-f", container)
        clean_stop = e.stop()
        deadline = time.monotonic() + 15
        while (left := traces() - before) and time.monotonic() < deadline:
            time.sleep(0.2)
        assert clean_stop, "walnutd did not end within 20 s of SIGTERM"
        assert not left, f"left behind: {sorted(left)}"
    finally:
        e.stop()
        e.log.close()
        if os.environ.get("WALNUT_TEST_KEEP"):
            print("kept:", e.root)
        else:
            shutil.rmtree(e.root, ignore_errors=True)


def hyperv_available(engine):
    """None, or the engine's reason why hyperv cannot run here."""
    if engine.hyperv_reason is None:
        result = engine.docker("run", "--rm", "--isolation=hyperv", IMAGE, "true", timeout=120)
        if result.code == 0:
            engine.hyperv_reason = ""
        else:
            lines = result.err.strip().splitlines()
            engine.hyperv_reason = (lines[0] if lines else f"exit status {result.code}")[:300]
            engine.hyperv_refused = any(t in result.err for t in NOT_BUILT) or "hyperv is not available" in result.err
    return engine.hyperv_reason


@pytest.fixture(params=["process", "hyperv"])
def iso(request, engine):
    if request.param == "hyperv":
        reason = hyperv_available(engine)
        if reason:
            if engine.hyperv_refused:
                pytest.skip("hyperv: " + reason)
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
        skip_if_not_built(result)
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
