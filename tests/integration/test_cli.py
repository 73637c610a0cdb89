# SPDX-License-Identifier: Apache-2.0
"""The walnut command against the session's engine: Docker's flags, output and exit statuses, without Docker's client."""
import json
import os
import subprocess
import tarfile
import time

import pytest

from conftest import BUILD, IMAGE, Result


@pytest.fixture
def walnut(engine):
    if not (BUILD / "walnut").exists():
        pytest.skip("not built yet: walnut")

    def call(*args, input=None, timeout=120, check=None):
        result = Result(subprocess.run([str(BUILD / "walnut"), *map(str, args)], capture_output=True, text=True,
                                       input=input, stdin=subprocess.DEVNULL if input is None else None,
                                       timeout=timeout, env=dict(os.environ, WALNUT_HOST="unix://" + engine.socket)))
        if check is not None:
            assert result.code == check, result
        return result
    return call


@pytest.fixture
def name(walnut, request):
    yield "cli-test"
    walnut("rm", "-f", "cli-test")


def test_version_and_info(walnut):
    assert "API version" in walnut("version", check=0).out
    out = walnut("info", check=0).out
    for line in ("Default Isolation: ", "Accelerator: ", "Reason: ", "Kernel Version: ", "Cgroup Version: "):
        assert line in out, out
    assert json.loads(walnut("info", "--format=json", check=0).out)["OSType"] == "linux"


@pytest.mark.parametrize("command, code", [(["true"], 0), (["sh", "-c", "exit 7"], 7), (["nosuch"], 127),
                                           (["/etc/not-executable"], 126), (["sh", "-c", "kill -9 $$"], None)])
def test_exit_status(walnut, iso, command, code):
    result = walnut("run", "--rm", "--isolation=" + iso, IMAGE, *command)
    if code is not None:
        assert result.code == code, result


def test_status_125(walnut):
    assert walnut("run", "--rm", "--isolation=foo", IMAGE, "true").code == 125
    assert walnut("run", "--rm", "no-such-image-here", "true").code == 125
    assert walnut("run", "--no-such-flag", IMAGE, "true").code == 125
    assert walnut("nosuchverb").code == 125


def test_options(walnut, iso):
    result = walnut("run", "--rm", "--isolation=" + iso, "-i", "-u", "ada", "-w", "/tmp", "-eA=b", "-h", "hh", IMAGE,
                    "sh", "-c", "id -u; pwd; echo $A; hostname; cat; echo e >&2", input="piped\n", check=0)
    assert result.out.split() == ["1000", "/tmp", "b", "hh", "piped"]
    assert result.err == "e\n"


def test_create_start_attached(walnut, name):
    walnut("create", "-i", "--name", name, IMAGE, "cat", check=0)
    assert walnut("start", "-a", "-i", name, input="hello\n", timeout=30, check=0).out == "hello\n"


def test_life(walnut, iso, name):
    walnut("run", "-d", "--name", name, "-l", "k=v", "--isolation=" + iso, IMAGE, "sh", "-c",
           "trap 'exit 5' TERM; echo up; while :; do sleep 0.1; done", check=0)
    deadline = time.monotonic() + 30
    while "up" not in walnut("logs", name).out and time.monotonic() < deadline:
        time.sleep(0.1)
    short = walnut("ps", "-q", "--filter", "label=k=v", "--filter", "isolation=" + iso, check=0).out.strip()
    info = json.loads(walnut("inspect", name, check=0).out)[0]
    assert info["Id"].startswith(short) and short
    assert info["HostConfig"]["Isolation"] == iso
    assert walnut("exec", name, "sh", "-c", "echo in; exit 4").code == 4
    assert walnut("exec", name, "nosuch").code == 127
    assert walnut("rm", name).code == 1
    walnut("stop", name, check=0)
    assert walnut("wait", name, check=0).out == "5\n"
    walnut("start", name, check=0)
    walnut("kill", name, check=0)
    assert walnut("wait", name, check=0).out == "137\n"
    walnut("rename", name, name + "2", check=0)
    assert name + "2" in walnut("ps", "-a", check=0).out
    walnut("rm", "-f", name + "2", check=0)
    assert name not in walnut("ps", "-a", check=0).out


def test_terminal(engine, walnut, iso, name):
    pexpect = pytest.importorskip("pexpect")
    env = dict(os.environ, WALNUT_HOST="unix://" + engine.socket, TERM="dumb")

    def spawn(*args):
        return pexpect.spawn(str(BUILD / "walnut"), list(args), dimensions=(33, 77), timeout=60, encoding="utf8", env=env)
    p = spawn("run", "-it", "--name", name, "--isolation=" + iso, IMAGE, "sh")
    p.expect("# ")
    p.sendline("stty size")
    p.expect("33 77")
    p.setwinsize(40, 100)
    time.sleep(1)
    p.sendline("stty size")
    p.expect("40 100")
    p.send("\x10\x11")
    p.expect(pexpect.EOF)
    p.close()
    assert p.exitstatus == 0
    p = spawn("attach", name)
    p.sendline("exit 9")
    p.expect(pexpect.EOF)
    p.close()
    assert p.exitstatus == 9


def test_images(walnut, tmp_path):
    archive, root = str(tmp_path / "a.tar"), str(tmp_path / "root.tar")
    walnut("tag", IMAGE, "walnut-test/cli:2", check=0)
    assert "walnut-test/cli" in walnut("images", check=0).out
    walnut("save", "-o", archive, "walnut-test/cli:2", check=0)
    walnut("rmi", "walnut-test/cli:2", check=0)
    assert "walnut-test/cli:2" in walnut("load", "-i", archive, check=0).out
    assert "IMAGE" in walnut("history", "walnut-test/cli:2", check=0).out
    walnut("rmi", "walnut-test/cli:2", check=0)
    with tarfile.open(root, "w") as tar:
        tar.addfile(tarfile.TarInfo("empty"))
    walnut("import", root, "walnut-test/imported:1", check=0)
    walnut("rmi", "walnut-test/imported:1", check=0)


def test_looking_into_a_container(walnut, name):
    walnut("run", "-d", "--name", name, IMAGE, "sh", "-c", "echo made > /made; sleep 1234; true", check=0)
    deadline = time.monotonic() + 30
    while "A /made" not in walnut("diff", name).out and time.monotonic() < deadline:
        time.sleep(0.1)
    assert walnut("diff", name, check=0).out == "A /made\n"
    out = walnut("top", name, check=0).out
    assert out.split()[:2] == ["UID", "PID"] and "sleep 1234" in out
    assert walnut("top", name, "-o", "pid,args", check=0).out.split()[:2] == ["PID", "COMMAND"]
    assert name in walnut("stats", name, check=0).out and name in walnut("stats", "--no-stream", check=0).out
    assert "Containers" in walnut("df", check=0).out
    assert walnut("prune", "extra").code == 125


def test_files_as_archives(engine, walnut, name, tmp_path):
    walnut("run", "-d", "--name", name, IMAGE, "sleep", "100", check=0)
    walnut("export", "-o", tmp_path / "all.tar", name, check=0)
    with tarfile.open(tmp_path / "all.tar") as tar:
        assert "bin/busybox" in tar.getnames()
    env = dict(os.environ, WALNUT_HOST="unix://" + engine.socket)
    program = str(BUILD / "walnut")
    data = subprocess.run([program, "cp", name + ":/etc/group", "-"], capture_output=True, env=env, check=True).stdout
    subprocess.run([program, "cp", "-", name + ":/tmp"], input=data, env=env, check=True)
    assert "ada:" in walnut("exec", name, "cat", "/tmp/group", check=0).out
    result = walnut("cp", name + ":/absent", "-")
    assert result.code == 1 and "Could not find the file /absent" in result.err
    assert walnut("cp", "a", "b").code == 125


def test_help_names_every_flag(walnut):
    out = walnut("run", "--help", check=0).out
    for flag in ("--isolation", "--memory", "-e, --env", "--rm", "-it"[:2]):
        assert flag in out
    assert "--privileged" in walnut("help", "exec", check=0).out
