# SPDX-License-Identifier: Apache-2.0
"""Real programs from Debian's packages in both isolations: postgres, redis, nginx and python's own regression tests."""
import pathlib
import subprocess

import pytest

from conftest import ROOT

PACKAGES = ["postgresql", "redis-server", "nginx-light", "python3", "libpython3.11-testsuite"]
NAME = "walnut/debian-postgresql:12"


@pytest.fixture(scope="module")
def image(engine):
    made = subprocess.run([str(ROOT / "tests/images/make-debian"), *PACKAGES], capture_output=True, text=True, timeout=1200)
    if made.returncode != 0:
        pytest.skip("the image of Debian's packages cannot be made: " + (made.stderr.strip().splitlines() or ["?"])[-1])
    engine.load(pathlib.Path(made.stdout.strip().splitlines()[-1]))
    yield NAME
    engine.docker("rmi", "-f", NAME)


def run(engine, iso, image, *args, timeout=180):
    result = engine.docker("run", "--rm", "--isolation=" + iso, "--memory=512m", *args[:-1], image, "sh", "-c", args[-1],
                           timeout=timeout)
    assert result.code == 0, result
    return result.out


def test_postgres(engine, iso, image):
    out = run(engine, iso, image, "-u", "postgres", """
        set -e
        cd /tmp
        bin=$(echo /usr/lib/postgresql/*/bin)
        $bin/initdb -D /tmp/data -A trust >/dev/null
        $bin/pg_ctl -D /tmp/data -w -t 120 -l /tmp/log -o "-k /tmp -c listen_addresses=" start >/dev/null
        psql -h /tmp -qtA postgres -c "create table t as select generate_series(1, 1000) as n" -c "select sum(n) from t"
        $bin/pg_ctl -D /tmp/data -w -m fast stop >/dev/null""")
    assert out.strip() == "500500"


def test_redis(engine, iso, image):
    out = run(engine, iso, image, """
        redis-server --port 0 --unixsocket /tmp/redis.sock --daemonize yes >/dev/null
        for i in 1 2 3 4 5 6 7 8 9 10; do redis-cli -s /tmp/redis.sock ping >/dev/null 2>&1 && break; sleep .5; done
        redis-cli -s /tmp/redis.sock set key value
        redis-cli -s /tmp/redis.sock get key""")
    assert out.split() == ["OK", "value"]


def test_nginx(engine, iso, image):
    out = run(engine, iso, image, """
        echo "a page" > /var/www/html/page.txt
        nginx || exit 1
        python3 -c 'import urllib.request as u; r = u.urlopen("http://127.0.0.1/page.txt"); print(r.status, r.read())'""")
    assert out.strip() == r"200 b'a page\n'"


def test_python_regression_tests(engine, iso, image):
    out = run(engine, iso, image, "python3 -m test test_json test_struct 2>&1 || exit 1")
    assert "Tests result: SUCCESS" in out
