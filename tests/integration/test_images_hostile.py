# SPDX-License-Identifier: Apache-2.0
"""Archives made to do harm: one sentence, the right status, nothing left; and what looks odd but is allowed works."""
import gzip
import hashlib
import http.client
import io
import json
import os
import socket
import struct
import subprocess
import tarfile

import pytest

from conftest import BUILD, IMAGE, Engine, busybox_layer
import docker_archive


def post(engine, path, body):
    """POST a body; gives status and text, progress lines joined."""
    conn = http.client.HTTPConnection("localhost", timeout=120)
    conn.sock = socket.socket(socket.AF_UNIX)
    conn.sock.connect(engine.socket)
    try:
        conn.request("POST", path, body, {"Content-Type": "application/x-tar"})
    except (BrokenPipeError, ConnectionResetError):
        pass  # refused before all of it was sent: the answer is there
    answer = conn.getresponse()
    return answer.status, answer.read().decode()


def entry(name, kind=tarfile.REGTYPE, data=b"", link="", mode=0o644, pax=None, size=None):
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, link, mode
    info.size = len(data) if size is None else size
    info.pax_headers = pax or {}
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape") + data + b"\0" * (-len(data) % 512)


def patched(block, at, data):
    """A header with some bytes changed and its checksum right again."""
    b = bytearray(block)
    b[at:at + len(data)] = data
    b[148:156] = b" " * 8
    b[148:156] = b"%06o\0 " % sum(b[:512])
    return bytes(b)


END = b"\0" * 1024


def archive(layers, name="hostile:1", config=None, manifest=None, files=(), blob=lambda b: b):
    """A docker-archive of layers (bytes of tars) with the right diff_ids."""
    config = config if config is not None else json.dumps({
        "architecture": "amd64", "os": "linux", "config": {"Cmd": ["/bin/sh"]},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(b).hexdigest() for b in layers]}}).encode()
    out = b""
    for i, layer in enumerate(layers):
        out += entry(f"l{i}.tar", data=blob(layer))
    for file, data in files:
        out += entry(file, data=data)
    manifest = manifest if manifest is not None else json.dumps(
        [{"Config": "c.json", "RepoTags": [name], "Layers": [f"l{i}.tar" for i in range(len(layers))]}]).encode()
    return out + entry("c.json", data=config) + entry("manifest.json", data=manifest) + END


def state(engine):
    root = engine.root + "/data/"
    return sorted(os.listdir(root + "images/blobs/sha256")), os.listdir(root + "tmp"), engine.ok("images", "-aq")


def refused(engine, body, *words):
    before = state(engine)
    status, text = post(engine, "/images/load", body)
    assert status in (400, 500), text
    message = json.loads(text)["message"]
    assert "\n" not in message.strip() and len(message) < 500
    for word in words:
        assert word in message, message
    assert state(engine) == before
    return status


BASE = entry("bin", tarfile.DIRTYPE, mode=0o755)

LAYERS = {
    "dot-dot": (BASE + entry("../../../../etc/walnut-escaped", data=b"x") + END, "outside of its root"),
    "dot-dot-in-the-middle": (entry("a/../../b", data=b"x") + END, "outside of its root"),
    "hard-link-out": (entry("passwd", tarfile.LNKTYPE, link="../../etc/passwd") + END, "outside of its root"),
    "hard-link-absent": (entry("passwd", tarfile.LNKTYPE, link="etc/passwd") + END, "hard link"),
    "link-loop": (entry("a", tarfile.SYMTYPE, link="b") + entry("b", tarfile.SYMTYPE, link="a") +
                  entry("a/file", data=b"x") + END, "loop of symbolic links"),
    "long-name": (entry("n" * 300, data=b"x") + END, "longer than 255"),
    "long-path": (entry("d/" * 5000 + "f", data=b"x") + END, "longer than"),
    "bad-number": (BASE + patched(entry("f"), 100, b"zzzzzzz") + END, "bad number"),
    "bad-checksum": (BASE + b"x" * 512 + END, "damaged"),
    "huge-pax": (patched(entry("p", b"x"), 124, b"\x80\0\0\0\0\0\1\0\0\0\0\0") + END, "extended header"),
    "bad-pax": (entry("p", b"x", data=b"999999 path=a\n") + END, "pax"),
    "size-beyond": (entry("f", size=1 << 33) + END, "cut short"),
    "bad-device": (BASE + patched(entry("d", tarfile.CHRTYPE), 329, b"\x80\0\0\0\x01\0\0\0") + END, "bad number"),
    "bad-whiteout": (entry(".wh...", data=b"") + END, "whiteout"),
    "unknown-type": (entry("v", b"V") + END, "type"),
    "link-without-target": (entry("s", tarfile.SYMTYPE) + END, "target"),
    "many-xattrs": (entry("x", data=b"", pax={f"SCHILY.xattr.user.{i}": "v" for i in range(2000)}) + END, "attributes"),
}


@pytest.mark.parametrize("kind", list(LAYERS))
def test_hostile_layer(engine, kind):
    layer, words = LAYERS[kind]
    assert refused(engine, archive([layer]), words) == 400
    assert not os.path.exists("/etc/walnut-escaped")


def test_odd_but_allowed(engine):
    """Absolute names and links, duplicates, names that are not UTF-8, devices, files below links: inside of the root."""
    layer = (BASE + entry("/bin/busybox", data=open("/bin/busybox", "rb").read(), mode=0o755) +
             entry("bin/sh", tarfile.SYMTYPE, link="/bin/busybox") + entry("dup", data=b"first\n") +
             entry("out", tarfile.SYMTYPE, link="/../../../../etc") + entry("out/inside", data=b"in\n") +
             entry("b\udcffd", data=b"bytes\n") + entry("dup", data=b"second\n") +
             entry("hard", tarfile.LNKTYPE, link="/dup") + entry("absolute", tarfile.SYMTYPE, link="/etc/hostname") + END)
    status, text = post(engine, "/images/load", archive([layer], "odd:1"))
    assert status == 200 and "Loaded image: odd:1" in text
    out = engine.ok("run", "--rm", "odd:1", "/bin/sh", "-c",
                    "/bin/busybox cat /dup /hard /etc/inside /b*d", text=False)
    assert out == b"second\nsecond\nin\nbytes\n"
    assert not os.path.exists("/etc/inside")
    engine.ok("rmi", "odd:1")


def test_deep_tree(engine):
    """2000 folders in each other, in steps that each fit a name's limit."""
    layer, path = b"", ""
    for i in range(2000):
        path += "d/"
        layer += entry(path, tarfile.DIRTYPE, mode=0o755) if len(path) < 4000 else b""
    status, text = post(engine, "/images/load", archive([layer + END], "deep:1"))
    assert status == 200, text
    engine.ok("rmi", "deep:1")


@pytest.mark.parametrize("what", ["config-absent", "layer-absent", "config-no-json", "config-other-layers", "manifest-no-json",
                                  "manifest-is-a-number", "manifest-links", "bad-name", "second-image-bad", "config-deep",
                                  "duplicate-keys"])
def test_hostile_manifest(engine, what):
    layer = BASE + entry("f", data=os.urandom(10)) + END
    good = {"Config": "c.json", "RepoTags": ["hostile:1"], "Layers": ["l0.tar"]}
    case = {
        "config-absent": dict(manifest=[{**good, "Config": "absent.json"}]),
        "layer-absent": dict(manifest=[{**good, "Layers": ["absent.tar"]}]),
        "config-no-json": dict(config=b"{not json"),
        "config-other-layers": dict(config=b'{"rootfs":{"diff_ids":["sha256:' + b"0" * 64 + b'"]}}'),
        "manifest-no-json": dict(manifest=b"[not json"),
        "manifest-is-a-number": dict(manifest=b"7"),
        "manifest-links": dict(manifest=[{**good, "Config": "../../../../etc/passwd"}]),
        "bad-name": dict(manifest=[{**good, "RepoTags": ["Not A Name"]}]),
        "second-image-bad": dict(manifest=[good, {**good, "RepoTags": ["UPPER:1"]}]),
        "config-deep": dict(config=b'{"a":' * 5000 + b"1" + b"}" * 5000),
        "duplicate-keys": dict(config=b'{"os":"linux","os":"linux"}'),
    }[what]
    if isinstance(case.get("manifest"), list):
        case["manifest"] = json.dumps(case["manifest"]).encode()
    refused(engine, archive([layer], **case))
    assert "hostile" not in engine.ok("images")


def oci(layer, **change):
    """An OCI layout of one image; change: what to put in the layer's descriptor in place of the truth."""
    files = {}

    def blob(data, kind, **over):
        digest = hashlib.sha256(data).hexdigest()
        files["blobs/sha256/" + digest] = data
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": "sha256:" + digest, "size": len(data), **over}
    config = json.dumps({"architecture": "amd64", "os": "linux", "rootfs": {
        "type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest()]}}).encode()
    manifest = {"schemaVersion": 2, "config": blob(config, "config.v1+json"),
                "layers": [blob(layer, "layer.v1.tar", **change)]}
    index = {"schemaVersion": 2, "manifests": [blob(json.dumps(manifest).encode(), "manifest.v1+json", annotations={
        "org.opencontainers.image.ref.name": "hostile:oci"})]}
    out = b"".join(entry(name, data=data) for name, data in files.items())
    return out + entry("oci-layout", data=b'{"imageLayoutVersion":"1.0.0"}') + \
        entry("index.json", data=json.dumps(index).encode()) + END


def test_oci_sizes_and_digests(engine):
    layer = BASE + entry("f", data=b"x") + END
    refused(engine, oci(layer, size=7), "size")
    refused(engine, oci(layer, digest="sha256:" + "0" * 64))
    refused(engine, oci(layer, digest="sha512:" + "0" * 128), "digest")
    refused(engine, oci(layer, digest=17), "digest")
    status, text = post(engine, "/images/load", oci(layer))
    assert status == 200 and "hostile:oci" in text
    engine.ok("rmi", "hostile:oci")


def test_truncated_at_any_place(engine):
    whole = open(engine.image_archive, "rb").read()
    end = len(whole) - 10240
    for at in sorted({1, 511, 512, 513, 1024, 2000, end, *range(3000, end, end // 25)}):
        refused(engine, whole[:at])


@pytest.mark.parametrize("compress", ["gzip", "zstd"])
def test_damaged_compression(engine, tmp_path, compress):
    whole = subprocess.run([compress, "-1", "-c", engine.image_archive], stdout=subprocess.PIPE, check=True).stdout
    half = len(whole) // 2
    refused(engine, whole[:half])
    refused(engine, whole[:half] + bytes(200) + whole[half + 200:])


def test_compressed_layers(engine):
    layer = BASE + entry("file", data=b"content\n") + END
    for i, blob in enumerate([lambda b: gzip.compress(b),
                              lambda b: subprocess.run(["zstd", "-c"], input=b, stdout=subprocess.PIPE, check=True).stdout]):
        status, text = post(engine, "/images/load", archive([layer], f"packed:{i}", blob=blob))
        assert status == 200, text
        digest = engine.inspect(f"packed:{i}")["RootFS"]["Layers"]
        assert digest == ["sha256:" + hashlib.sha256(layer).hexdigest()]
        engine.ok("rmi", f"packed:{i}")


def test_old_save_with_links(engine):
    """Docker 1.10's and podman's form: ID/layer.tar is a link to another image's layer."""
    layer = BASE + entry("file", data=b"content\n") + END
    config = json.dumps({"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": [
        "sha256:" + hashlib.sha256(layer).hexdigest()] * 2}}).encode()
    body = (entry("aa/layer.tar", data=layer) + entry("bb/layer.tar", tarfile.SYMTYPE, link="../aa/layer.tar") +
            entry("c.json", data=config) + entry("manifest.json", data=json.dumps([
                {"Config": "c.json", "RepoTags": ["old:1"], "Layers": ["aa/layer.tar", "bb/layer.tar"]}]).encode()) + END)
    status, text = post(engine, "/images/load", body)
    assert status == 200 and "old:1" in text
    assert len(engine.inspect("old:1")["RootFS"]["Layers"]) == 2
    engine.ok("rmi", "old:1")


@pytest.fixture
def small_engine(tmp_path):
    """An engine of its own on a file system of 48 MB, with a limit of 256 MiB for a layer."""
    e = Engine()
    data = e.root + "/data"
    os.mkdir(data)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m", "walnut-test", data], check=True)
    try:
        e.start("--max-layer-size", str(256 << 20))
        yield e
    finally:
        e.stop()
        subprocess.run(["umount", data], check=True)
        e.log.close()
        subprocess.run(["rm", "-rf", e.root, e.exec_root], check=True)


def test_disk_full(small_engine):
    """No space during a load: one sentence that says so and what to do; nothing left; the next load works."""
    random = os.urandom(1 << 20) * 64
    empty = state(small_engine)
    status, text = post(small_engine, "/images/load", archive([entry("big", data=random) + END]))
    assert status == 507 or status == 500
    assert "No space left on device" in text and "free space on" in text
    assert state(small_engine) == empty
    status, text = post(small_engine, "/images/load", archive([entry("small", data=b"x") + END], "small:1"))
    assert status == 200, text
    assert small_engine.ok("images", "-q")


@pytest.mark.parametrize("compress", ["gzip", "zstd"])
def test_bomb(small_engine, tmp_path, compress):
    """A layer of 4 GiB of zeros in some kilobytes ends at the limit, and never fills the disk."""
    path = tmp_path / "bomb"
    with open(path, "wb") as out, subprocess.Popen([compress, "-1", "-c"], stdin=subprocess.PIPE, stdout=out) as p:
        p.stdin.write(entry("zeros", size=4 << 30))
        for _ in range(4096):
            p.stdin.write(bytes(1 << 20))
        p.stdin.write(END)
    layer = path.read_bytes()
    body = archive([b""], config=b'{"rootfs":{"diff_ids":["sha256:' + b"0" * 64 + b'"]}}', blob=lambda b: layer)
    refused(small_engine, body, "larger than the limit")


def test_layer_features(engine, tmp_path, iso):
    """Hard links, capabilities as extended attributes, sparse files, folders opaque or removed over three layers."""
    first, second, third = tmp_path / "1.tar", tmp_path / "2.tar", tmp_path / "3.tar"
    busybox_layer(first)
    cap = struct.pack("<IIIII", 0x02000001, 1 << 13, 0, 0, 0).decode("latin-1")
    busybox = open("/bin/busybox", "rb").read()
    second.write_bytes(
        entry("opt", tarfile.DIRTYPE, mode=0o755) + entry("opt/a", data=b"a\n") + entry("opt/b", tarfile.LNKTYPE, link="opt/a") +
        entry("srv", tarfile.DIRTYPE, mode=0o755) + entry("srv/old", data=b"old\n") +
        entry("gone", tarfile.DIRTYPE, mode=0o755) + entry("gone/x", data=b"x\n") + END)
    with tarfile.open(third, "w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("bin/busybox-cap")
        info.size, info.mode = len(busybox), 0o755
        info.pax_headers = {"SCHILY.xattr.security.capability": cap}
        tar.encoding = "latin-1"
        tar.addfile(info, io.BytesIO(busybox))
    sparse = tmp_path / "sparse"
    with open(sparse, "wb") as f:
        f.seek(1 << 30)
        f.write(b"end")
    subprocess.run(["tar", "-C", tmp_path, "-S", "-rf", third, "sparse"], check=True)
    with tarfile.open(third, "a", format=tarfile.PAX_FORMAT) as tar:
        for name in ("srv/.wh..wh..opq", ".wh.gone"):
            tar.addfile(tarfile.TarInfo(name))
        info = tarfile.TarInfo("srv/new")
        tar.addfile(info)
    name = f"features-{iso}:1"
    docker_archive.make(tmp_path / "i.tar", name, [first, second, third])
    engine.load(tmp_path / "i.tar")
    out = engine.ok("run", "--rm", "--isolation=" + iso, "-u", "ada", name, "sh", "-c",
                    "stat -c '%h %i' /opt/a /opt/b; stat -c %s /sparse; tail -c 3 /sparse; echo; ls /srv; ls -d /gone;"
                    "busybox-cap grep CapPrm /proc/self/status; exit 0")
    lines = out.splitlines()
    assert len(lines) == 6, out
    assert lines[0] == lines[1] and lines[0].startswith("2 ")
    assert lines[2:5] == [str((1 << 30) + 3), "end", "new"]
    assert lines[5].split() == ["CapPrm:", "0000000000002000"]
    blobs = engine.root + "/data/images/blobs/sha256/"
    assert sum(os.stat(blobs + f).st_blocks * 512 for f in os.listdir(blobs)) < 200 << 20, "sparse files stay sparse"
    saved = tmp_path / "saved.tar"
    engine.ok("save", "-o", saved, name)
    with tarfile.open(saved) as tar:
        layers = json.load(tar.extractfile("manifest.json"))[0]["Layers"]
        assert hashlib.sha256(tar.extractfile(layers[2]).read()).hexdigest() == docker_archive.sha256_file(third)
    engine.ok("rmi", name)


def test_worker_program_is_there():
    assert os.access(BUILD / "walnut-worker", os.X_OK) and IMAGE
