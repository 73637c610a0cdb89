# SPDX-License-Identifier: Apache-2.0
"""Docker's semantics of `docker run`, the same in both isolations."""
import hashlib
import os
import subprocess
import time

import pexpect
import pytest

from conftest import IMAGE


# ---- exit codes ----

def test_exit_0(run):
    run("true", check=0)


@pytest.mark.parametrize("code", [1, 3, 42, 255])
def test_exit_code(run, code):
    run("sh", "-c", f"exit {code}", check=code)


def test_exit_125_bad_option(run):
    assert run("--memory=1", ..., "true").code == 125


def test_exit_126_not_executable(run):
    result = run("/etc/not-executable", check=126)
    assert "permission denied" in result.err.lower()


def test_exit_126_directory(run):
    run("/etc", check=126)


def test_exit_127_no_command(run):
    result = run("no-such-command", check=127)
    assert "executable file not found in $PATH" in result.err


def test_exit_127_no_path(run):
    result = run("/no/such/command", check=127)
    assert "no such file or directory" in result.err


@pytest.mark.parametrize("name,number", [("KILL", 9), ("TERM", 15)])
def test_exit_128_plus_signal(run, name, number):
    run("--init", ..., "sh", "-c", f"kill -{name} $$; sleep 5", check=128 + number)


# ---- streams ----

def test_stdout_and_stderr_apart(run):
    result = run("sh", "-c", "echo out; echo err >&2", check=0)
    assert (result.out, result.err) == ("out\n", "err\n")


def test_stdin(run):
    assert run("-i", ..., "cat", input="hello\n", check=0).out == "hello\n"


def test_no_stdin_without_i(run):
    assert run("cat", input="hello\n", check=0).out == ""


def test_stdin_end_of_file(run):
    assert run("-i", ..., "sh", "-c", "wc -c; echo after", input="12345", check=0).out.split() == ["5", "after"]


@pytest.mark.parametrize("size", [1, 100])
def test_megabytes_through(run, size):
    data = os.urandom(1 << 20) * size
    result = run("-i", ..., "cat", input=data, text=False, timeout=300, check=0)
    assert hashlib.sha256(result.out).digest() == hashlib.sha256(data).digest()


def test_large_output_is_whole(run):
    result = run("sh", "-c", "seq 1 200000", check=0)
    assert result.out.split() == [str(i) for i in range(1, 200001)]


def spawn(engine, iso, *args):
    args = list(args)
    args[args.index(...)] = IMAGE
    return pexpect.spawn("docker", ["run", "--rm", "--isolation=" + iso, *args], env=engine.env(), timeout=30,
                         encoding="utf-8", dimensions=(31, 91))


def test_tty(engine, iso, run):
    child = spawn(engine, iso, "-it", ..., "sh", "-c", "tty; stty size; read x; echo got $x; exit 7")
    child.expect("/dev/pts/0")
    child.expect("31 91")
    child.sendline("walnut")
    child.expect("got walnut")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 7


def test_tty_resize(engine, iso, run):
    child = spawn(engine, iso, "-it", ..., "sh", "-c", "trap 'stty size' WINCH; echo ready; while :; do sleep 0.1; done")
    child.expect("ready")
    for row in range(44, 64):  # the client watches its terminal only from some moment after the start
        child.setwinsize(row, 122)
        if child.expect([f"{row} 122", pexpect.TIMEOUT], timeout=2) == 0:
            break
    else:
        raise AssertionError("no resize of the client's terminal reached the container")
    child.close(force=True)


def test_tty_size_is_there_before_the_first_instruction(engine, iso):
    """ConsoleSize of the create request: no resize has to win a race with the program."""
    status, made = engine.api("POST", "/containers/create", {
        "Image": IMAGE, "Tty": True, "Cmd": ["stty", "size"],
        "HostConfig": {"Isolation": iso, "ConsoleSize": [33, 77]}})
    assert status == 201, made
    id = made["Id"]
    try:
        engine.docker("start", id)
        engine.docker("wait", id)
        assert engine.docker("logs", id).out.strip() == "33 77"
    finally:
        engine.docker("rm", "-f", id)


def test_tty_ctrl_c(engine, iso, run):
    child = spawn(engine, iso, "-it", ..., "sh", "-c", "trap 'echo caught; exit 9' INT; echo ready; while :; do sleep 0.1; done")
    child.expect("ready")
    child.send("\x03")
    child.expect("caught")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 9


def test_detach_keys(engine, iso, run):
    child = spawn(engine, iso, "-it", "--name", "detached-" + iso, ..., "sh")
    child.expect("#")
    child.send("\x10\x11")
    child.expect(pexpect.EOF)
    child.close()
    assert engine.ok("inspect", "-f", "{{.State.Running}}", "detached-" + iso) == "true"
    engine.docker("rm", "-f", "detached-" + iso)


def test_stdout_is_no_tty_without_t(run):
    assert run("sh", "-c", "test -t 1 && echo tty || echo pipe", check=0).out == "pipe\n"


# ---- options ----

def test_detached(engine, container):
    c = container("sleep", "100")
    assert len(c) == 64
    assert engine.ok("ps", "-q", "--no-trunc") .split().count(c) == 1


def test_rm_removes(engine, run):
    run("--rm", "--name", "gone", ..., "true", check=0)
    assert engine.docker("inspect", "gone").code == 1


def test_environment(run):
    out = run("-e", "A=1", "-e", "B=two words", ..., "env", check=0).out.splitlines()
    assert "A=1" in out and "B=two words" in out
    assert any(line.startswith("PATH=") for line in out)
    assert any(line.startswith("HOSTNAME=") for line in out)
    assert "HOME=/root" in out


def test_workdir(run):
    assert run("-w", "/home/ada", ..., "pwd", check=0).out == "/home/ada\n"


def test_workdir_is_made(run):
    assert run("-w", "/made/here", ..., "pwd", check=0).out == "/made/here\n"


@pytest.mark.parametrize("user,ids", [("ada", "1000 1000"), ("1000", "1000 1000"), ("1234", "1234 0"), ("ada:extra", "1000 2000"),
                                      ("5:6", "5 6"), ("root", "0 0")])
def test_user(run, user, ids):
    assert run("-u", user, ..., "sh", "-c", "echo $(id -u) $(id -g)", check=0).out.strip() == ids


def test_user_groups_and_home(run):
    out = run("-u", "ada", ..., "sh", "-c", "id -G; echo $HOME", check=0).out.splitlines()
    assert set(out[0].split()) == {"1000", "2000"} and out[1] == "/home/ada"


def test_unknown_user(run):
    result = run("-u", "nosuchuser", ..., "true")
    assert result.code in (125, 126) and "nosuchuser" in result.err


def test_hostname(run):
    assert run("-h", "kernel-panic", ..., "hostname", check=0).out == "kernel-panic\n"


def test_default_hostname_is_the_short_id(engine, container):
    c = container("sleep", "100")
    assert engine.ok("exec", c, "hostname") == c[:12]


def test_entrypoint(run):
    assert run("--entrypoint", "echo", ..., "a", "b", check=0).out == "a b\n"


def test_read_only(run):
    result = run("--read-only", ..., "sh", "-c", "echo x > /file")
    assert result.code != 0 and "Read-only" in result.err


def test_writable(run):
    assert run("sh", "-c", "echo x > /file && cat /file", check=0).out == "x\n"


def test_tmpfs(run):
    out = run("--tmpfs", "/scratch:size=1m", ..., "sh", "-c", "grep ' /scratch ' /proc/mounts; df -k /scratch | tail -1", check=0).out
    assert "tmpfs" in out and "1024" in out


def test_init(run):
    out = run("--init", ..., "sh", "-c", "echo $$; cat /proc/1/comm", check=0).out.splitlines()
    assert out[0] != "1" and out[1] != "sh"


def test_command_is_pid_1(run):
    assert run("sh", "-c", "echo $$", check=0).out == "1\n"


def test_name_conflict(engine, container):
    container("--name", "taken", ..., "sleep", "100")
    result = engine.docker("create", "--name", "taken", IMAGE, "true")
    assert result.code != 0 and "is already in use by container" in result.err


def test_label(engine, container):
    c = container("--label", "a=b", "--label", "empty", ..., "sleep", "100")
    assert engine.inspect(c)["Config"]["Labels"] == {"a": "b", "empty": ""}
    assert engine.ok("ps", "-q", "--no-trunc", "--filter", "label=a=b") == c


def test_memory_limit(engine, run, iso):
    result = run("--memory=64m", ..., "sh", "-c", "head -c 200m /dev/zero | tail -c 150m | wc -c", timeout=120)
    assert result.code != 0 or "157286400" not in result.out


def test_cpus(engine, container):
    c = container("--cpus=0.5", ..., "sleep", "100")
    assert engine.inspect(c)["HostConfig"]["NanoCpus"] == 500000000


def test_pids_limit(run):
    result = run("--pids-limit=10", ..., "sh", "-c", "for i in $(seq 30); do sleep 3 & done; wait", timeout=60)
    assert "can't fork" in result.err or result.code != 0


def test_ulimit(run):
    assert run("--ulimit", "nofile=123:456", ..., "sh", "-c", "ulimit -n; ulimit -Hn", check=0).out.split() == ["123", "456"]


DEFAULT_CAPS = 0x00000000a80425fb


def caps(text):
    return int([line for line in text.splitlines() if line.startswith("CapEff")][0].split()[1], 16)


def test_default_capabilities(run):
    assert caps(run("cat", "/proc/self/status", check=0).out) == DEFAULT_CAPS


def test_cap_add_drop(run):
    out = run("--cap-drop", "ALL", "--cap-add", "NET_BIND_SERVICE", ..., "cat", "/proc/self/status", check=0).out
    assert caps(out) == 1 << 10


def test_user_has_no_capabilities(run):
    assert caps(run("-u", "ada", ..., "cat", "/proc/self/status", check=0).out) == 0


def test_privileged(run):
    out = run("--privileged", ..., "sh", "-c", "cat /proc/self/status; mount -t tmpfs none /root && echo mounted", check=0).out
    assert caps(out) & (1 << 21) and "mounted" in out


def test_unprivileged_cannot_mount(run):
    assert run("mount", "-t", "tmpfs", "none", "/root").code != 0


def test_seccomp_is_on(run, engine):
    assert "Seccomp:\t2" in run("cat", "/proc/self/status", check=0).out


def test_masked_and_read_only_paths(run):
    out = run("sh", "-c", "wc -c < /proc/kcore; ls /proc/acpi 2>/dev/null | wc -l; echo x > /proc/sys/kernel/domainname || echo refused", check=0)
    assert out.out.split()[0] == "0" and "refused" in out.out


def test_devices(run):
    out = run("sh", "-c", "for d in null zero full random urandom tty ptmx; do test -e /dev/$d && echo $d; done; ls -d /dev/shm /dev/pts /dev/mqueue",
              check=0).out.split()
    assert out == ["null", "zero", "full", "random", "urandom", "tty", "ptmx", "/dev/mqueue", "/dev/pts", "/dev/shm"]


def test_etc_files(run):
    out = run("-h", "box", ..., "sh", "-c", "cat /etc/hostname /etc/hosts; test -e /etc/resolv.conf && echo resolv", check=0).out
    assert out.startswith("box\n") and "127.0.0.1\tlocalhost" in out and "resolv" in out


def test_isolation_is_resolved(engine, container, iso):
    c = container("sleep", "100")
    assert engine.inspect(c)["HostConfig"]["Isolation"] == iso
    assert c in engine.ok("ps", "-q", "--no-trunc", "--filter", "isolation=" + iso).split()


def test_kernel(run, iso):
    release = run("uname", "-rv", check=0).out.strip()
    host = subprocess.run(["uname", "-rv"], capture_output=True, text=True).stdout.strip()
    assert (release == host) == (iso == "process")


def test_stop_signal(engine, container):
    c = container("--stop-signal", "USR1", ..., "sh", "-c", "trap 'exit 33' USR1; while :; do sleep 0.1; done")
    time.sleep(0.5)
    engine.ok("stop", c)
    assert engine.inspect(c)["State"]["ExitCode"] == 33


def test_stop_timeout_then_kill(engine, container):
    c = container("--stop-timeout", "1", ..., "sh", "-c", "trap '' TERM; while :; do sleep 0.1; done")
    time.sleep(0.5)
    start = time.monotonic()
    engine.ok("stop", c)
    assert 0.8 < time.monotonic() - start < 8
    assert engine.inspect(c)["State"]["ExitCode"] == 137


# ---- refusals ----

@pytest.mark.parametrize("option,name", [("--gpus=all", ("gpu", "devicerequests")), ("--volumes-from=x", "no such container"),
                                         ("--cgroup-parent=/x", "cgroup"), ("--userns=host", "userns"), ("--link=a:b", "link")])
def test_option_is_honoured_or_refused_by_name(run, engine, option, name):
    """An option that is not built must be refused in a sentence that names it; never ignored."""
    result = engine.docker("run", "--rm", option, IMAGE, "true")
    if option in ("--userns=host",):
        return
    names = name if isinstance(name, tuple) else (name,)
    assert result.code == 125 and any(n in result.err.lower() for n in names), result


def test_isolation_unknown(engine):
    result = engine.docker("run", "--rm", "--isolation=foo", IMAGE, "true")
    assert result.code == 125 and "foo" in result.err and "isolation" in result.err.lower(), result


def test_no_such_image(engine):
    result = engine.docker("run", "--rm", "--pull=never", "no-such-image", "true")
    assert result.code == 125 and "No such image: no-such-image:latest" in result.err, result
