#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Drives walnut-agent on the host through unix sockets, as a shim would through vsock.

usage: tests/unit/agent_peer.py WALNUT_AGENT ROOTFS SPEC.json [INPUT]
"""
import json
import socket
import struct
import subprocess
import sys
import tempfile
import threading


def listen(folder, port):
    s = socket.socket(socket.AF_UNIX)
    s.bind(f"{folder}/{port}")
    s.listen(1)
    return s


class Peer:
    def __init__(self, sock):
        self.sock, self.id = sock, 0

    def recv(self):
        def full(n):
            out = b""
            while len(out) < n:
                part = self.sock.recv(n - len(out))
                if not part:
                    raise EOFError
                out += part
            return out
        return json.loads(full(struct.unpack("<I", full(4))[0]))

    def call(self, method, **params):
        self.id += 1
        data = json.dumps({"id": self.id, "method": method, "params": params}).encode()
        self.sock.sendall(struct.pack("<I", len(data)) + data)
        while True:
            m = self.recv()
            print(method, "->", m)
            if m.get("id") == self.id:
                return m
            self.events = getattr(self, "events", []) + [m]


def main():
    agent, rootfs, spec = sys.argv[1:4]
    data = sys.argv[4].encode() if len(sys.argv) > 4 else b"input\n"
    spec = json.load(open(spec))
    with tempfile.TemporaryDirectory() as d:
        ls = {p: listen(d, p) for p in range(1024, 1028)}
        ports = {1025: "stdin", 1026: "stdout", 1027: "stderr"}
        proc = subprocess.Popen([agent, "--test-dir", d, "--test-rootfs", rootfs])
        peer = Peer(ls[1024].accept()[0])
        print(peer.recv())
        peer.call("setup", time_ns=1, entropy="", hostname="x", layers=[], scratch=False, files={})
        conns, outs = {}, {}

        def serve(port):
            c = conns[port] = ls[port].accept()[0]
            if ports[port] == "stdin":
                c.sendall(data)
                c.shutdown(socket.SHUT_WR)
                return
            outs[port] = b""
            while part := c.recv(65536):
                outs[port] += part

        ts = [threading.Thread(target=serve, args=(p,)) for p in ports]
        [t.start() for t in ts]
        r = peer.call("create", spec=spec, streams={n: p for p, n in ports.items()}, init=False)
        ok = "result" in r and "result" in peer.call("start")
        if ok:
            peer.call("stats")
            while (getattr(peer, "events", None) or [peer.recv()])[0].get("event") != "exited":
                pass
        [t.join(5) for t in ts]
        for p in outs:
            print(ports[p], len(outs[p]), outs[p][:400])
        peer.call("shutdown")
        peer.sock.close()
        print("agent ends with", proc.wait(10))


main()
