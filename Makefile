# rs-smtpmail: build, test, try, install.  Each target works from a fresh checkout.

EMACS ?= emacs
CARGO ?= cargo
PREFIX ?= /usr/local
LISPDIR ?= $(PREFIX)/share/emacs/site-lisp/rs-smtpmail
INFODIR ?= $(PREFIX)/share/info

VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
UNAME := $(shell uname -s)
ifeq ($(UNAME),Darwin)
BUILT := librs_smtpmail.dylib
SUFFIX := .dylib
else ifneq (,$(findstring NT,$(UNAME)))
BUILT := rs_smtpmail.dll
SUFFIX := .dll
else
BUILT := librs_smtpmail.so
SUFFIX := .so
endif
MODULE := lisp/rs-smtpmail-module$(SUFFIX)
LISP := $(wildcard lisp/*.el)

all: module

# The module is put in place by rename: an Emacs that has the old one mapped keeps it.
module: build-packages
	$(CARGO) build --release --locked --lib
	@cmp -s target/release/$(BUILT) $(MODULE) || { \
	  cp target/release/$(BUILT) $(MODULE).new && mv $(MODULE).new $(MODULE); }
	@echo $(VERSION) > lisp/rs-smtpmail-module.version

sink: build-packages
	$(CARGO) build --release --locked --example smtp-sink

build-packages:
	@sh tests/peers/packages.sh build

test-packages: build-packages
	@sh tests/peers/packages.sh test

demo: module sink
	@tests/isolated $(EMACS) -Q --batch -L lisp -l tests/demo.el

test: test-rust test-lisp

test-rust: test-packages
	$(CARGO) test --locked

test-lisp: test-packages module sink
	tests/isolated $(EMACS) -Q --batch -L lisp -L tests/lisp -l tests/lisp/run.el

# The ERT suites on several versions of Emacs; makes doc/client-table.org.
matrix: test-packages module sink
	@tests/matrix

lint: test-packages tests/fuzz/Cargo.lock
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	$(CARGO) clippy --locked --all-targets --no-default-features -- -D warnings
	$(CARGO) clippy --manifest-path tests/fuzz/Cargo.toml --target-dir target \
	  --no-default-features -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps --document-private-items --quiet
	tests/isolated $(EMACS) -Q --batch -L lisp -l tests/lint.el $(LISP)

# The sources compile for other systems, too.
cross: build-packages
	@tests/cross

bench: test-packages module sink
	$(CARGO) build --release --locked --example flush-bench
	tests/isolated $(EMACS) -Q --batch -L lisp -l tests/bench/bench.el

# Each parser for FUZZ_SECONDS.  cargo-fuzz needs compiler flags that are unstable.
FUZZ_SECONDS ?= 60
fuzz: build-packages tests/fuzz/Cargo.lock
	@sh tests/peers/packages.sh fuzz
	@command -v cargo-fuzz > /dev/null || $(CARGO) install --locked cargo-fuzz
	for target in replies body addresses; do \
	  mkdir -p tests/fuzz/corpus/$$target && \
	  RUSTC_BOOTSTRAP=1 $(CARGO) fuzz run --fuzz-dir tests/fuzz --sanitizer none $$target \
	    tests/fuzz/corpus/$$target tests/fuzz/seeds/$$target -- \
	    -max_total_time=$(FUZZ_SECONDS) || exit 1; \
	done

# The same versions as the package's own; cargo adds the fuzzer's.
tests/fuzz/Cargo.lock: Cargo.lock tests/fuzz/Cargo.toml
	cp Cargo.lock $@

info: doc/rs-smtpmail.info

doc/rs-smtpmail.info: doc/rs-smtpmail.org doc/client-table.org README.org
	@sh tests/peers/packages.sh doc
	$(EMACS) -Q --batch -l ox-texinfo --visit $< --eval '(setq make-backup-files nil)' \
	  -f org-texinfo-export-to-texinfo
	makeinfo --no-split -o $@ doc/rs-smtpmail.texi

install: module info
	install -d $(DESTDIR)$(LISPDIR) $(DESTDIR)$(INFODIR)
	install -m 644 doc/rs-smtpmail.info $(DESTDIR)$(INFODIR)
	-install-info $(DESTDIR)$(INFODIR)/rs-smtpmail.info $(DESTDIR)$(INFODIR)/dir
	install -m 644 $(LISP) lisp/rs-smtpmail-module.version $(DESTDIR)$(LISPDIR)
	cp $(MODULE) $(DESTDIR)$(LISPDIR)/rs-smtpmail-module$(SUFFIX).new
	mv $(DESTDIR)$(LISPDIR)/rs-smtpmail-module$(SUFFIX).new \
	  $(DESTDIR)$(LISPDIR)/rs-smtpmail-module$(SUFFIX)

clean:
	$(CARGO) clean
	rm -f lisp/*.elc $(MODULE) lisp/rs-smtpmail-module.version doc/*.texi doc/*.info

.PHONY: all module sink build-packages test-packages demo test test-rust test-lisp \
  matrix cross lint bench fuzz info install clean
