# SPDX-License-Identifier: Apache-2.0
"""pull, push, login: Debian's docker-registry (plain, TLS with passwords), and one that breaks in every way."""
import base64
import crypt
import gzip
import hashlib
import http.server
import io
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tarfile
import threading
import time
import urllib.parse

import pytest

from conftest import BUILD, Engine, Result, busybox_layer
import docker_archive

LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def sha(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


class Debian:
    """docker-registry(1) with a configuration of its own."""

    def __init__(self, folder, **http_options):
        self.port = free_port()
        self.host = f"127.0.0.1:{self.port}"
        auth = http_options.pop("auth", None)
        config = {"version": 0.1, "log": {"level": "error", "accesslog": {"disabled": True}},
                  "storage": {"filesystem": {"rootdirectory": str(folder / "blobs")}, "delete": {"enabled": True}},
                  "http": {"addr": self.host, **http_options}}
        if auth:
            config["auth"] = auth
        (folder / "config.yml").write_text(json.dumps(config))
        self.process = subprocess.Popen(["docker-registry", "serve", folder / "config.yml"], stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            with socket.socket() as s:
                if s.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)
        raise RuntimeError("docker-registry does not start")

    def stop(self):
        self.process.terminate()
        self.process.wait()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("registry")


@pytest.fixture(scope="module")
def node(folder):
    """An engine of its own, with certificates in folder/certs and the test image."""
    e = Engine()
    e.certs = folder / "certs"
    e.certs.mkdir()
    try:
        e.start("--registry-certs", str(e.certs))
        e.layer = e.root + "/layer.tar"
        busybox_layer(e.layer)
        e.image_id = docker_archive.make(e.root + "/image.tar", "base:1", [e.layer])
        e.load(e.root + "/image.tar")
        yield e
    finally:
        e.stop()
        e.log.close()
        shutil.rmtree(e.root, ignore_errors=True)
        shutil.rmtree(e.exec_root, ignore_errors=True)


@pytest.fixture(scope="module")
def plain(folder):
    (folder / "plain").mkdir()
    r = Debian(folder / "plain")
    yield r
    r.stop()


def clean(node):
    """Nothing half-made: no staging, and every blob belongs to an image or a pull that may go on."""
    assert os.listdir(node.root + "/data/tmp") == []


def test_push_and_pull(node, plain):
    name = plain.host + "/a/b:1"
    node.ok("tag", "base:1", name)
    out = node.ok("push", name)
    assert "The push refers to repository [" + plain.host + "/a/b]" in out and "digest: sha256:" in out
    digest = out.split("digest: ")[1].split()[0]
    assert "Layer already exists" in node.ok("push", name) or "Pushed" in out
    node.ok("rmi", name, "base:1")
    out = node.ok("pull", name)
    assert "Status: Downloaded newer image for " + name in out and "Digest: " + digest in out
    image = node.inspect(name)
    assert image["Id"] == node.image_id and image["RepoDigests"] == [plain.host + "/a/b@" + digest]
    assert node.ok("run", "--rm", name, "echo", "hi") == "hi"
    assert "Image is up to date" in node.ok("pull", name)
    assert digest in node.ok("images", "--digests")
    by_digest = plain.host + "/a/b@" + digest
    assert node.inspect(by_digest)["Id"] == node.image_id
    assert "Untagged: " + by_digest in node.ok("rmi", name)
    assert "Status: Downloaded newer image for " + by_digest in node.ok("pull", by_digest)
    assert node.inspect(by_digest)["RepoTags"] == []
    node.ok("rmi", by_digest)
    node.load(node.root + "/image.tar")
    clean(node)


def test_run_pulls(node, plain):
    name = plain.host + "/run:1"
    node.ok("tag", "base:1", name)
    node.ok("push", "-q", name)
    node.ok("rmi", name)
    assert node.ok("run", "--rm", name, "echo", "pulled") == "pulled"
    assert node.ok("run", "--rm", "--pull=always", name, "echo", "again") == "again"
    node.ok("rmi", name)


def test_skopeo_agrees(node, plain, tmp_path):
    """What we push, skopeo reads; what skopeo pushes, we read; digests are kept both ways."""
    name = plain.host + "/skopeo:1"
    node.ok("tag", "base:1", name)
    pushed = node.ok("push", name).split("digest: ")[1].split()[0]
    seen = json.loads(subprocess.run(["skopeo", "inspect", "--tls-verify=false", "docker://" + name], check=True,
                                     capture_output=True, text=True).stdout)
    assert seen["Digest"] == pushed
    for target, options in (("zstd", ["--dest-compress-format", "zstd"]), ("oci", ["--format", "oci"])):
        other = f"{plain.host}/from-skopeo:{target}"
        subprocess.run(["skopeo", "copy", "--src-tls-verify=false", "--dest-tls-verify=false", *options,
                        "docker://" + name, "docker://" + other], check=True, capture_output=True)
        node.ok("pull", other)
        assert node.inspect(other)["RootFS"]["Layers"] == node.inspect(name)["RootFS"]["Layers"]
        assert node.ok("run", "--rm", other, "cat", "/etc/not-executable") == "plain"
        node.ok("rmi", other)
    node.ok("rmi", name)


def test_absent(node, plain):
    result = node.docker("pull", plain.host + "/nothing:1")
    assert result.code == 1 and f"manifest for {plain.host}/nothing:1 not found: manifest unknown" in result.err
    assert "does not exist locally with the tag" in node.docker("push", plain.host + "/never:1").err
    result = node.docker("pull", "127.0.0.1:1/x:1")
    assert result.code == 1 and "127.0.0.1:1" in result.err
    clean(node)


@pytest.fixture(scope="module")
def secure(folder, node):
    """TLS by an authority of its own, which certs.d names; user "ada" with the password "secret"."""
    work = folder / "secure"
    work.mkdir()
    run = lambda *args: subprocess.run(args, check=True, capture_output=True, cwd=work)
    run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "key.pem", "-out", "cert.pem", "-days", "2",
        "-subj", "/CN=walnut test", "-addext", "subjectAltName=IP:127.0.0.1,DNS:walnut-registry.test")
    (work / "htpasswd").write_text("ada:" + crypt.crypt("secret", crypt.mksalt(crypt.METHOD_BLOWFISH)) + "\n")
    r = Debian(work, tls={"certificate": str(work / "cert.pem"), "key": str(work / "key.pem")},
               auth={"htpasswd": {"realm": "test", "path": str(work / "htpasswd")}})
    (node.certs / r.host).mkdir()
    shutil.copy(work / "cert.pem", node.certs / r.host / "ca.crt")
    yield r
    r.stop()


def test_tls_and_passwords(node, secure):
    name = secure.host + "/private:1"
    node.ok("tag", "base:1", name)
    result = node.docker("push", name)
    assert result.code == 1 and "no basic auth credentials" in result.err
    result = node.docker("login", "-u", "ada", "--password-stdin", secure.host, input="wrong")
    assert result.code == 1 and "unauthorized" in result.err
    assert "Login Succeeded" in node.ok("login", "-u", "ada", "--password-stdin", secure.host, input="secret")
    node.ok("push", name)
    node.ok("rmi", name)
    node.ok("pull", name)
    assert node.inspect(name)["Id"] == node.image_id
    node.ok("logout", secure.host)
    node.ok("rmi", name)
    assert "no basic auth credentials" in node.docker("pull", name).err
    clean(node)


def test_unknown_authority(folder, plain):
    """Neither a certificate nobody vouches for nor plain HTTP is spoken with, unless the registry is named insecure."""
    name = f"walnut-registry.test:{plain.port}/x:1"
    hosts = pathlib.Path("/etc/hosts").read_text()
    e = Engine()
    try:
        # walnut-registry.test is this machine, but not by a loopback address's name.
        pathlib.Path("/etc/hosts").write_text(hosts + "127.0.0.1 walnut-registry.test\n")
        e.start()
        result = e.docker("pull", name)
        assert result.code == 1 and "https://" in result.err
        e.stop()
        e.start("--insecure-registry", f"walnut-registry.test:{plain.port}")
        assert "manifest unknown" in e.docker("pull", name).err
    finally:
        pathlib.Path("/etc/hosts").write_text(hosts)
        e.stop()
        e.log.close()
        shutil.rmtree(e.root, ignore_errors=True)
        shutil.rmtree(e.exec_root, ignore_errors=True)


# --- a registry that breaks ---

class Broken(http.server.ThreadingHTTPServer):
    """Repositories behave by their names; each serves one image of two layers under the tag "1"."""
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.host = "127.0.0.1:%d" % self.server_address[1]
        self.blobs, self.counts, self.seen, self.lock = {}, {}, [], threading.Lock()
        layers = []
        for i in range(2):
            tar = io.BytesIO()
            with tarfile.open(fileobj=tar, mode="w") as t:
                info = tarfile.TarInfo(f"file{i}")
                data = os.urandom(400000)
                info.size = len(data)
                t.addfile(info, io.BytesIO(data))
            layers.append(tar.getvalue())
        config = json.dumps({"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {
            "type": "layers", "diff_ids": [sha(b) for b in layers]}}).encode()
        packed = [gzip.compress(b, 1, mtime=0) for b in layers]
        self.layers = [sha(b) for b in packed]
        for b in (config, *packed):
            self.blobs[sha(b)] = b
        self.manifest = json.dumps({
            "schemaVersion": 2, "mediaType": MANIFEST_TYPE,
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": sha(config), "size": len(config)},
            "layers": [{"mediaType": LAYER_TYPE, "digest": sha(b), "size": len(b)} for b in packed]}).encode()
        self.id = sha(config)
        index = {"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": [
            {"mediaType": MANIFEST_TYPE, "digest": sha(b"other"), "size": 5, "platform": {"os": "linux", "architecture": "s390x"}},
            {"mediaType": MANIFEST_TYPE, "digest": sha(self.manifest), "size": len(self.manifest),
             "platform": {"os": "linux", "architecture": "amd64"}}]}
        self.index = json.dumps(index).encode()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def nth(self, key):
        with self.lock:
            self.counts[key] = self.counts.get(key, 0) + 1
            return self.counts[key]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def answer(self, status, body=b"", kind="application/json", **headers):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for k, v in headers.items():
            self.send_header(k.replace("_", "-"), v)
        self.end_headers()
        self.wfile.write(body)

    def error(self, status, code, **headers):
        self.answer(status, json.dumps({"errors": [{"code": code, "message": code.lower().replace("_", " ")}]}).encode(), **headers)

    def do_GET(self):
        s = self.server
        path = urllib.parse.urlsplit(self.path)
        with s.lock:
            s.seen.append((self.path, dict(self.headers)))
        if path.path == "/token":
            query = urllib.parse.parse_qs(path.query)
            wanted = "Basic " + base64.b64encode(b"ada:secret").decode()
            if self.headers.get("Authorization") != wanted or query.get("service") != ["broken"] or \
                    query.get("scope") not in (None, ["repository:token:pull"]):
                return self.error(401, "UNAUTHORIZED")
            return self.answer(200, json.dumps({"token": "the-token"}).encode())
        if path.path.startswith("/elsewhere/"):
            return self.answer(200, s.blobs[path.path[11:]], "application/octet-stream")
        if path.path == "/v2/":
            return self.answer(200, b"{}")
        repo, kind, ref = path.path[4:].rsplit("/", 2)
        if repo == "token" and self.headers.get("Authorization") != "Bearer the-token":
            return self.error(401, "UNAUTHORIZED", WWW_Authenticate=f'Bearer realm="http://{s.host}/token",service="broken"')
        return self.manifest(repo, ref) if kind == "manifests" else self.blob(repo, ref)

    def manifest(self, repo, ref):
        s = self.server
        if repo == "denied":
            return self.error(403, "DENIED")
        if repo == "limited":
            return self.error(429, "TOOMANYREQUESTS", Retry_After="1")
        if repo == "html":
            return self.answer(200, b"<html>sign in</html>", "text/html")
        if repo == "huge-manifest":
            return self.answer(200, b'{"schemaVersion":2,"x":"' + b"x" * (9 << 20) + b'"}', MANIFEST_TYPE)
        if repo == "schema1":
            return self.answer(200, b'{"schemaVersion":1}', "application/vnd.docker.distribution.manifest.v1+json")
        if repo == "index" and ref == "1":
            return self.answer(200, s.index, INDEX_TYPE)
        if repo == "index-lies":
            return self.answer(200, s.index if ref == "1" else s.manifest + b" ", INDEX_TYPE if ref == "1" else MANIFEST_TYPE)
        m = json.loads(s.manifest)
        if repo == "many":
            m["layers"] *= 400
        elif repo == "bad-size":
            m["layers"][0]["size"] -= 1
        elif repo == "bad-size-up":
            m["layers"][0]["size"] += 1
        elif repo == "bad-digest":
            m["layers"][0]["digest"] = "sha256:../../../../etc/passwd"
        elif repo == "swapped":
            m["layers"].reverse()
        elif repo == "missing-layer":
            m["layers"].pop()
        elif repo == "layers-object":
            m["layers"] = {"a": 1}
        else:
            return self.answer(200, s.manifest, MANIFEST_TYPE)
        return self.answer(200, json.dumps(m).encode(), MANIFEST_TYPE)

    def blob(self, repo, digest):
        s, data = self.server, self.server.blobs[digest]
        n = s.nth((repo, digest))
        is_layer = digest in s.layers
        first = int(self.headers["Range"][6:].split("-")[0]) if self.headers.get("Range") else 0
        if not is_layer:
            if repo == "wrong-config":
                data = data.replace(b"amd64", b"arm64")
            return self.answer(200, data, "application/octet-stream")
        if repo == "wrong-bytes":
            data = data[:5000] + bytes([data[5000] ^ 1]) + data[5001:]
        if repo == "other-gzip":  # whole and well-formed, but another layer
            data = s.blobs[s.layers[1 - s.layers.index(digest)]]
        if repo == "errors-500" and n <= 2:
            return self.error(500, "UNKNOWN")
        if repo == "errors-429" and n <= 1:
            return self.error(429, "TOOMANYREQUESTS", Retry_After="1")
        if repo == "gone":
            return self.error(404, "BLOB_UNKNOWN")
        if repo == "redirect":
            return self.answer(307, Location=f"http://localhost:{s.server_address[1]}/elsewhere/{digest}")
        if repo == "redirect-loop":
            return self.answer(307, Location=self.path)
        if repo == "redirect-file":
            return self.answer(307, Location="file:///etc/passwd")
        if repo == "half" and digest == s.layers[1]:
            time.sleep(2)  # the other one is done by then
        ranged = first and repo != "no-range"
        if ranged:
            data = data[first:]
        size = len(data)
        cut = size // 3 if repo in ("cut", "no-range") and n <= 2 else 10 if repo == "cut-always" else \
            100000 if repo == "slow" and n == 1 else size
        self.send_response(206 if ranged else 200)
        if ranged:
            at = first + 7 if repo == "wrong-range" else first
            self.send_header("Content-Range", f"bytes {at}-{first + size - 1}/{first + size}")
        if repo == "endless":
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            try:
                while True:
                    self.wfile.write(b"10000\r\n" + bytes(65536) + b"\r\n")
            except OSError:
                return None
        self.send_header("Content-Length", str(size))
        self.end_headers()
        if repo == "wrong-range" and n == 1:
            cut = size // 2
        self.wfile.write(data[:cut])
        self.wfile.flush()
        if cut < size:
            self.close_connection = True
            if repo == "slow":
                time.sleep(3)
            self.connection.shutdown(socket.SHUT_RDWR)
        return None


@pytest.fixture(scope="module")
def broken():
    s = Broken()
    yield s
    s.shutdown()


@pytest.fixture(autouse=True)
def forget(node):
    yield
    node.docker("image", "prune", "-f")


@pytest.mark.parametrize("repo", ["fine", "cut", "no-range", "errors-500", "errors-429", "redirect", "slow", "index"])
def test_survives(node, broken, repo):
    name = f"{broken.host}/{repo}:1"
    node.ok("pull", name, timeout=300)
    image = node.inspect(name)
    assert image["Id"] == broken.id
    if repo == "index":
        assert image["RepoDigests"] == [f"{broken.host}/index@{sha(broken.index)}"]
    node.ok("rmi", name)
    clean(node)


FAILS = {
    "denied": "pull access denied for {host}/denied, repository does not exist or may require 'docker login'",
    "limited": "toomanyrequests",
    "html": "registry's manifest",
    "huge-manifest": "",
    "schema1": "schema 1",
    "index-lies": "manifest verification failed",
    "many": "more than 512 layers",
    "bad-size": "more bytes than the manifest says",
    "bad-size-up": "",
    "bad-digest": "bad layer",
    "swapped": "does not match the image's config",
    "missing-layer": "does not name as many layers",
    "layers-object": "no image's",
    "wrong-config": "image config verification failed",
    "wrong-bytes": "verification failed",
    "other-gzip": "",
    "gone": "blob unknown",
    "redirect-loop": "redirects",
    "redirect-file": "",
    "cut-always": "",
    "endless": "more bytes than the manifest says",
    "wrong-range": "",
}


@pytest.mark.parametrize("repo", list(FAILS))
def test_refuses(node, broken, repo):
    before = node.ok("images", "-aq")
    result = node.docker("pull", f"{broken.host}/{repo}:1", timeout=300)
    assert result.code == 1, result
    assert FAILS[repo].format(host=broken.host) in result.err
    assert len(result.err.strip().splitlines()) == 1 and "passwd" not in result.err.replace("etc/passwd\"", "")
    assert node.ok("images", "-aq") == before
    clean(node)


def test_no_such_platform(node, broken):
    result = node.docker("pull", "--platform", "linux/arm64", broken.host + "/index:1")
    assert result.code == 1 and "no matching manifest for linux/arm64 in the manifest list entries" in result.err
    result = node.docker("pull", "--platform", "linux/arm64", broken.host + "/fine:1")
    assert result.code == 1 and "does not provide the specified platform" in result.err


def test_token_and_no_leak(node, broken):
    """A token server; and what a redirect to another host does not get to see."""
    assert node.docker("pull", broken.host + "/token:1").code == 1
    node.ok("login", "-u", "ada", "--password-stdin", broken.host, input="secret")
    broken.seen.clear()
    node.ok("pull", broken.host + "/token:1")
    blobs = [h for p, h in broken.seen if "/blobs/" in p]
    assert blobs and all(h.get("Authorization") == "Bearer the-token" for h in blobs)
    node.ok("rmi", broken.host + "/token:1")
    broken.seen.clear()
    node.ok("pull", broken.host + "/redirect:1")
    away = [h for p, h in broken.seen if p.startswith("/elsewhere/")]
    assert len(away) == 2 and not any("Authorization" in h for h in away)
    node.ok("logout", broken.host)
    node.ok("rmi", broken.host + "/redirect:1")


def test_resumes_after_kill(folder, broken):
    """The engine is killed with one layer done: the next engine does not get that layer again, and nothing leaks."""
    e = Engine()
    try:
        e.start()
        first = broken.layers[0]
        real = broken.blobs[broken.layers[1]]
        broken.blobs[broken.layers[1]] = real[:-1] + bytes([real[-1] ^ 1])
        assert e.docker("pull", broken.host + "/half:1").code == 1
        e.kill()
        broken.blobs[broken.layers[1]] = real
        before = broken.counts[("half", first)]
        e.start()
        e.ok("pull", broken.host + "/half:1")
        assert broken.counts[("half", first)] == before
        assert len(os.listdir(e.root + "/data/images/blobs/sha256")) == 6
        e.ok("rmi", broken.host + "/half:1")
        assert os.listdir(e.root + "/data/images/blobs/sha256") == []
        assert os.listdir(e.root + "/data/tmp") == []
    finally:
        e.stop()
        e.log.close()
        shutil.rmtree(e.root, ignore_errors=True)
        shutil.rmtree(e.exec_root, ignore_errors=True)


def test_two_at_once_share_the_work(node, broken):
    """Two pulls of the same layers at the same time get them once."""
    broken.counts.clear()
    pulls = [node.popen("pull", f"{broken.host}/same:1", stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) for _ in range(4)]
    for p in pulls:
        _, err = p.communicate(timeout=120)
        assert p.returncode == 0, err
    assert [broken.counts[("same", d)] for d in broken.layers] == [1, 1]
    node.ok("rmi", broken.host + "/same:1")


def test_client_that_goes_away(node, broken):
    p = node.popen("pull", broken.host + "/slow:1", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(1)
    p.send_signal(signal.SIGKILL)
    p.wait()
    deadline = time.monotonic() + 10
    while os.listdir(node.root + "/data/tmp") and time.monotonic() < deadline:
        time.sleep(0.1)
    clean(node)
    assert node.ok("version")


def test_mirror(folder, broken):
    """Docker Hub's images come from the mirror, which is not told the password for Docker Hub."""
    e = Engine()
    try:
        e.start("--registry-mirror", "http://" + broken.host)
        with open(e.docker_config + "/config.json", "w") as f:
            json.dump({"auths": {"https://index.docker.io/v1/": {"auth": base64.b64encode(b"ada:secret").decode()}}}, f)
        broken.seen.clear()
        assert "Downloaded newer image for someone/mirrored:1" in e.ok("pull", "someone/mirrored:1")
        assert broken.seen and not any("Authorization" in h for _, h in broken.seen)
    finally:
        e.stop()
        e.log.close()
        shutil.rmtree(e.root, ignore_errors=True)
        shutil.rmtree(e.exec_root, ignore_errors=True)


@pytest.fixture
def walnut(node, tmp_path):
    """The walnut command, with a configuration of its own (walnut.config)."""
    config = tmp_path / "config"
    config.mkdir()

    def call(*args, input=None, path=None):
        env = dict(os.environ, WALNUT_HOST="unix://" + node.socket, DOCKER_CONFIG=str(config))
        if path:
            env["PATH"] = f"{path}:{env['PATH']}"
        return Result(subprocess.run([BUILD / "walnut", *map(str, args)], capture_output=True, text=True, timeout=300, env=env,
                                     input=input, stdin=subprocess.DEVNULL if input is None else None))
    call.config = config
    return call


def test_walnut_push_pull(node, plain, walnut):
    """The same words as docker's."""
    name = plain.host + "/walnut/x:2"
    node.ok("tag", "base:1", name)
    out = walnut("push", name).out
    assert f"The push refers to repository [{plain.host}/walnut/x]" in out and "2: digest: sha256:" in out
    node.ok("rmi", name)
    result = walnut("pull", name)
    assert result.code == 0 and "Downloaded newer image for " + name in result.out, result
    # not a terminal: no counting (and no line of a layer, as with docker: another name of the image is still there)
    assert "\x1b" not in result.out
    assert result.out.splitlines()[-1] == name
    assert walnut("pull", "-q", name).out == name + "\n"
    node.ok("rmi", name)
    run = walnut("run", "--rm", "--isolation=process", name, "echo", "it ran")
    assert run.out == "it ran\n" and f"Unable to find image '{name}' locally" in run.err, run
    node.ok("rmi", name)
    result = walnut("pull", plain.host + "/walnut/none")
    assert result.code == 1 and "not found: manifest unknown" in result.err and "Using default tag: latest" in result.out


def test_walnut_draws_as_docker(node, broken, walnut):
    """On a terminal, each layer has a line that is rewritten in place."""
    env = dict(os.environ, WALNUT_HOST="unix://" + node.socket)
    seen = subprocess.run(["script", "-qec", f"stty cols 140; {BUILD}/walnut pull {broken.host}/slow:1", "/dev/null"],
                          env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=300).stdout
    assert "\x1b[1A\x1b[2K" in seen.replace("\r", "") and "Downloading [" in seen and "]" in seen, seen
    assert seen.strip().splitlines()[-1] == broken.host + "/slow:1"
    node.ok("rmi", broken.host + "/slow:1")


def test_walnut_login(node, secure, walnut):
    """config.json is the one that docker reads and writes."""
    name = secure.host + "/walnut:1"
    node.ok("tag", "base:1", name)
    assert "no basic auth credentials" in walnut("push", name).err
    assert walnut("login", "-u", "ada", "--password-stdin", secure.host, input="wrong\n").code == 1
    assert not (walnut.config / "config.json").exists()
    result = walnut("login", "-u", "ada", "--password-stdin", secure.host, input="secret\n")
    assert result.code == 0 and "Login Succeeded" in result.out, result
    kept = json.loads((walnut.config / "config.json").read_text())
    assert kept["auths"][secure.host]["auth"] == base64.b64encode(b"ada:secret").decode()
    assert (walnut.config / "config.json").stat().st_mode & 0o777 == 0o600
    assert walnut("push", name).code == 0
    docker = subprocess.run(["docker", "--config", walnut.config, "-H", "unix://" + node.socket, "pull", name], capture_output=True)
    assert docker.returncode == 0, docker
    assert "Removing login credentials for " + secure.host in walnut("logout", secure.host).out
    assert walnut("logout", secure.host).out == f"Not logged in to {secure.host}\n"
    assert "no basic auth credentials" in walnut("push", name).err
    node.ok("rmi", name)


def test_walnut_credential_helper(node, secure, walnut, tmp_path):
    """credHelpers: the password is asked of the helper, and given to it, and is not in the file."""
    tools = tmp_path / "tools"
    tools.mkdir()
    store = tmp_path / "store"
    (tools / "docker-credential-test").write_text(
        f"""#!/bin/sh
case $1 in
store) cat > {store};;
get) read server; test -f {store} && cat {store} || exit 1;;
erase) rm {store};;
esac
""")
    (tools / "docker-credential-test").chmod(0o755)
    (walnut.config / "config.json").write_text(json.dumps({"credHelpers": {secure.host: "test"}, "other": {"kept": 1}}))
    name = secure.host + "/helped:1"
    node.ok("tag", "base:1", name)
    result = walnut("login", "-u", "ada", "-p", "secret", secure.host, path=tools)
    assert result.code == 0 and "unencrypted" not in result.err, result
    assert json.loads(store.read_text())["Secret"] == "secret"
    assert json.loads((walnut.config / "config.json").read_text()) == {"credHelpers": {secure.host: "test"}, "other": {"kept": 1}}
    assert walnut("push", name, path=tools).code == 0
    assert walnut("logout", secure.host, path=tools).code == 0 and not store.exists()
    assert walnut("push", name, path=tools).code == 1
    node.ok("rmi", name)


def test_walnut_commit(node, walnut):
    node.ok("run", "--isolation=process", "--name", "cli-commit", "base:1", "touch", "/made")
    out = walnut("commit", "-m", "why", "-c", "ENV A=b", "-c", "USER ada", "cli-commit", "cli/committed:3").out.strip()
    image = node.inspect("cli/committed:3")
    assert image["Id"] == out and image["Comment"] == "why" and "A=b" in image["Config"]["Env"] and image["Config"]["User"] == "ada"
    node.ok("rm", "cli-commit")
    node.ok("rmi", "cli/committed:3")
