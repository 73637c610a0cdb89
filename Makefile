# SPDX-License-Identifier: Apache-2.0
# A short front for Meson and Ninja. See README.md.

BUILD   ?= build
PREFIX  ?= /usr/local
SECONDS ?= 60
PROGRAMS = walnut walnutd walnut-shim walnut-vmm walnut-worker walnut-fetch walnut-tree walnut-agent

.PHONY: all nano demo test test-kvm kvm-shell unit asan fuzz lint parity bench install uninstall clean packages images

all: $(BUILD)/build.ninja
	ninja -C $(BUILD)
	@tools/link-programs $(BUILD)

$(BUILD)/build.ninja:
	meson setup $(BUILD) --prefix=$(PREFIX)

packages:
	tools/install-packages

# The guest: kernel (minutes once, cached outside the tree by a hash of its inputs) and initramfs.
nano: all
	tools/build-nano $(BUILD)

images:
	tests/images/make-debian

demo:
	demo/run

test: all nano
	tests/run

# The tests inside of a Nano host, where cgroup v2 and KVM are, whatever this machine has; and a shell there.
test-kvm: all nano
	tests/run kvm

kvm-shell: all nano
	tests/kvm/run --build $(BUILD) --shell

unit: all
	tests/run unit

asan:
	tests/run asan

fuzz:
	SECONDS_EACH=$(SECONDS) tests/fuzz/run

lint:
	tools/lint

# docs/parity.md's table of tests, from the last run of tests/run integration
parity:
	tools/parity $(BUILD)/test-results/integration.xml

bench: all nano
	bench/run
	nano/measure $(BUILD)

install: all
	meson install -C $(BUILD) --no-rebuild
	@tools/install-nano $(BUILD) $(DESTDIR)$(PREFIX)
	install -d $(DESTDIR)$(PREFIX)/share/man/man8 $(DESTDIR)$(PREFIX)/share/man/man1
	install -m 644 docs/man/*.8 $(DESTDIR)$(PREFIX)/share/man/man8
	install -m 644 docs/man/*.1 $(DESTDIR)$(PREFIX)/share/man/man1

# By name: what was installed from another build goes too. State (/var/lib/walnut) stays.
uninstall:
	rm -f $(addprefix $(DESTDIR)$(PREFIX)/bin/,walnut walnutd walnut-shim walnut-vmm walnut-worker walnut-fetch walnut-tree walnut-runtime)
	rm -f $(addprefix $(DESTDIR)$(PREFIX)/share/man/,$(foreach n,1 8,$(addprefix man$(n)/,$(notdir $(wildcard docs/man/*.$(n))))))
	rm -rf $(DESTDIR)$(PREFIX)/libexec/walnut $(DESTDIR)$(PREFIX)/lib/walnut

clean:
	rm -rf build build-asan build-fuzz build-clang
