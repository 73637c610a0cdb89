# SPDX-License-Identifier: Apache-2.0
# A short front for Meson and Ninja. See README.md.

BUILD   ?= build
PREFIX  ?= /usr/local
SECONDS ?= 60
PROGRAMS = walnut walnutd walnut-shim walnut-vmm walnut-worker walnut-agent

.PHONY: all nano demo test unit asan fuzz lint bench install clean packages images

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

test: all
	tests/run

unit: all
	tests/run unit

asan:
	tests/run asan

fuzz:
	SECONDS_EACH=$(SECONDS) tests/fuzz/run

lint:
	tools/lint

bench: all nano
	bench/run

install: all
	meson install -C $(BUILD) --no-rebuild
	@tools/install-nano $(BUILD) $(DESTDIR)$(PREFIX)
	install -d $(DESTDIR)$(PREFIX)/share/man/man8 $(DESTDIR)$(PREFIX)/share/man/man1
	install -m 644 docs/man/*.8 $(DESTDIR)$(PREFIX)/share/man/man8
	install -m 644 docs/man/*.1 $(DESTDIR)$(PREFIX)/share/man/man1

clean:
	rm -rf build build-asan build-fuzz build-clang
