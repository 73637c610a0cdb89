#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Makes a docker-archive (what "docker save" writes) of layer tars.

usage: docker_archive.py OUT.tar NAME:TAG LAYER.tar [LAYER.tar...] [--cmd CMD...]
"""
import hashlib
import io
import json
import sys
import tarfile


def sha256_file(path):
    digest = hashlib.sha256()
    with open(path, "rb") as f:
        while chunk := f.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def make(out, name, layers, cmd=("/bin/sh",), env=None, **config):
    """Write the archive; config: further keys of the image's config ("User", "Entrypoint", ...)."""
    digests = [sha256_file(p) for p in layers]
    image = {
        "architecture": "amd64",
        "os": "linux",
        "created": "2023-06-10T00:00:00Z",
        "config": {
            "Env": env or ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "Cmd": list(cmd),
            **config,
        },
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + d for d in digests]},
        "history": [{"created": "2023-06-10T00:00:00Z", "created_by": f"walnut tests: layer {i}"}
                    for i in range(len(layers))],
    }
    text = json.dumps(image, sort_keys=True).encode()
    config_name = hashlib.sha256(text).hexdigest() + ".json"
    manifest = json.dumps([{"Config": config_name, "RepoTags": [name],
                            "Layers": [d + "/layer.tar" for d in digests]}]).encode()
    with tarfile.open(out, "w", format=tarfile.GNU_FORMAT) as tar:
        def add(member, data):
            info = tarfile.TarInfo(member)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        add(config_name, text)
        for path, digest in zip(layers, digests):
            info = tar.gettarinfo(path, digest + "/layer.tar")
            info.uid = info.gid = 0
            info.uname = info.gname = ""
            with open(path, "rb") as f:
                tar.addfile(info, f)
        add("manifest.json", manifest)
    return "sha256:" + config_name[:-5]


if __name__ == "__main__":
    args, cmd = sys.argv[1:], ["/bin/sh"]
    if "--cmd" in args:
        at = args.index("--cmd")
        args, cmd = args[:at], args[at + 1:]
    if len(args) < 3:
        sys.exit(__doc__)
    print(make(args[0], args[1], args[2:], cmd))
