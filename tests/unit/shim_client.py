# SPDX-License-Identifier: Apache-2.0
"""A small client of walnut-shim's control protocol (ARCHITECTURE.md, "Engine to shim"), for tests."""
import array
import json
import os
import select
import socket
import struct
import subprocess


class ShimError(Exception):
    def __init__(self, code, message):
        super().__init__(message)
        self.code = code


class Conn:
    def __init__(self, sock):
        self.sock, self.buf, self.events, self.next_id = sock, b"", [], 0

    def _recv(self, timeout):
        while True:
            if len(self.buf) >= 4:
                n = struct.unpack("<I", self.buf[:4])[0]
                if len(self.buf) >= 4 + n:
                    message, self.buf = json.loads(self.buf[4:4 + n]), self.buf[4 + n:]
                    return message
            if not select.select([self.sock], [], [], timeout)[0]:
                raise TimeoutError("the shim does not answer")
            got = self.sock.recv(65536)
            if not got:
                raise EOFError("the shim closed its control socket")
            self.buf += got

    def call(self, method, params=None, fds=(), timeout=30):
        self.next_id += 1
        message = {"id": self.next_id, "method": method, "params": params or {}}
        if fds:
            message["fds"] = len(fds)
        text = json.dumps(message).encode()
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        self.sock.sendmsg([struct.pack("<I", len(text)) + text], ancillary)
        while True:
            answer = self._recv(timeout)
            if "event" in answer:
                self.events.append(answer)
            elif answer["id"] == self.next_id:
                if "error" in answer:
                    raise ShimError(answer["error"]["code"], answer["error"]["message"])
                return answer["result"]

    def wait_event(self, name, timeout=30):
        while True:
            for i, event in enumerate(self.events):
                if event["event"] == name:
                    return self.events.pop(i)["params"]
            message = self._recv(timeout)
            if "event" in message:
                self.events.append(message)


def demux(data):
    """Docker's frames -> (stdout, stderr)."""
    out = {1: b"", 2: b""}
    while data:
        kind, n = struct.unpack(">BxxxI", data[:8])
        out[kind] += data[8:8 + n]
        data = data[8 + n:]
    return out[1], out[2]


class Shim:
    def __init__(self, binary, folder, layer, ident="t1"):
        self.folder, self.layer, self.ident = str(folder), layer, ident
        self.run, self.data = self.folder + "/run", self.folder + "/data"
        for path in (self.run, self.data, self.data + "/upper", self.data + "/work"):
            os.makedirs(path, exist_ok=True)
        self.log = f"{self.data}/{ident}-json.log"
        ours, theirs = socket.socketpair()
        saved = theirs.fileno()

        def child():
            if saved != 3:
                os.dup2(saved, 3)
            else:
                os.set_inheritable(3, True)
        self.process = subprocess.Popen([binary, "--id", ident, "--run-dir", self.run, "--data-dir", self.data],
                                        preexec_fn=child, close_fds=False)
        theirs.close()
        self.conn = Conn(ours)

    def connect(self):
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(self.run + "/shim.sock")
        return Conn(sock)

    def spec_process(self, args, terminal=False, **more):
        return {"terminal": terminal, "user": {"uid": 0, "gid": 0}, "args": args, "cwd": "/",
                "env": ["PATH=/bin:/sbin:/usr/bin:/usr/sbin"], **more}

    def start_params(self, args, terminal=False, driver="json-file", process=None, linux=None, **more):
        params = {
            "spec": {
                "ociVersion": "1.0.2",
                "process": {**self.spec_process(args, terminal), **(process or {})},
                "root": {"path": "rootfs"},
                "hostname": self.ident,
                "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"},
                           {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]},
                           {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
                            "options": ["newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]}],
                "linux": {"namespaces": [{"type": t} for t in ("pid", "mount", "ipc", "uts", "network")],
                          **(linux or {})},
            },
            "isolation": "process", "stdin_open": False, "stdin_once": False,
            "log": {"driver": driver, "path": self.log, "max_size": -1, "max_file": 1},
            "rootfs": {"layers": [self.layer], "upper": self.data + "/upper", "work": self.data + "/work"},
            "cgroup_path": "/walnut-test/" + self.ident, "seccomp": False,
        }
        params.update(more)
        return params

    def start(self, args, **more):
        return self.conn.call("start", self.start_params(args, **more))

    def attach(self, conn=None, stdin=False, stdout=True, stderr=True, mux=True, **more):
        ours, theirs = socket.socketpair()
        (conn or self.conn).call("attach", {"stdin": stdin, "stdout": stdout, "stderr": stderr, "mux": mux, **more},
                                 [theirs.fileno()])
        theirs.close()
        return ours

    def exec(self, exec_id, args, stdin=False, mux=True, terminal=False):
        ours, theirs = socket.socketpair()
        self.conn.call("exec", {"exec_id": exec_id, "process": self.spec_process(args, terminal), "stdin": stdin,
                                "stdout": True, "stderr": True, "mux": mux}, [theirs.fileno()])
        theirs.close()
        return ours

    def log_records(self):
        with open(self.log, encoding="utf-8") as log:
            return [json.loads(line) for line in log]

    def end(self):
        try:
            self.conn.call("shutdown")
        except (ShimError, EOFError, OSError):
            pass
        self.conn.sock.close()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise


def read_all(sock, timeout=60):
    chunks = []
    sock.settimeout(timeout)
    while True:
        chunk = sock.recv(1 << 20)
        if not chunk:
            return b"".join(chunks)
        chunks.append(chunk)


def make_layer(folder):
    """A busybox root filesystem as an EROFS file."""
    root, layer = f"{folder}/root", f"{folder}/layer.erofs"
    for name in ("bin", "proc", "sys", "dev", "tmp", "etc"):
        os.makedirs(f"{root}/{name}", exist_ok=True)
    subprocess.run(["cp", "/bin/busybox", f"{root}/bin/busybox"], check=True)
    for name in ("sh", "cat", "echo", "sleep", "true", "false", "head", "kill", "stty", "md5sum", "seq", "ls", "id"):
        if not os.path.lexists(f"{root}/bin/{name}"):
            os.symlink("busybox", f"{root}/bin/{name}")
    with open(f"{root}/etc/notexec", "w", encoding="ascii") as f:
        f.write("x")
    subprocess.run(["mkfs.erofs", layer, root], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return layer
