# rs-smtpmail: build, test, try, install.  Each target works from a fresh checkout.

EMACS ?= emacs
CARGO ?= cargo
PREFIX ?= /usr/local
# Where Emacs looks under PREFIX, unless it is given.
LISPDIR ?=
INFODIR ?= $(PREFIX)/share/info
# "no" leaves the library out; Emacs decrypts authinfo.gpg then.
GPGME ?= yes

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
# The packages of the tests: the module's own is built where tests/ is not.
TESTS := --manifest-path tests/Cargo.toml
STAGE := target/site-lisp
MANUAL := doc/rs-smtpmail.info

# All that `make install' needs, so that root has nothing to build.
all: $(MODULE) $(STAGE)/.done $(if $(shell command -v makeinfo),$(MANUAL))

module: $(MODULE)

# The module is put in place by rename: an Emacs that has the old one mapped keeps it.
$(MODULE): Cargo.toml Cargo.lock $(shell find src -name '*.rs')
	@command -v $(CARGO) > /dev/null || { echo "There is no cargo here.  \
	Whoever has Rust should run make before, or see README.org"; exit 1; }
	@[ ! -e tests ] || GPGME=$(GPGME) sh tests/peers/packages.sh build
	$(CARGO) build --release --locked --lib $(if $(filter no,$(GPGME)),--no-default-features)
	@cmp -s target/release/$(BUILT) $(MODULE) || { \
	  cp target/release/$(BUILT) $(MODULE).new && mv $(MODULE).new $(MODULE); }
	@touch $(MODULE)
	@echo $(VERSION) > lisp/rs-smtpmail-module.version

$(STAGE)/.done: $(LISP) etc/install.el
	@$(EMACS) -Q --batch -l etc/install.el -f install-stage $(STAGE)
	@touch $@

sink: build-packages
	$(CARGO) build --release --locked $(TESTS) --package smtp-test-server

build-packages:
	@sh tests/peers/packages.sh build

test-packages: build-packages
	@sh tests/peers/packages.sh test

demo: module sink
	@tests/isolated $(EMACS) -Q --batch -L lisp -l tests/demo.el

test: test-rust test-lisp

test-rust: test-packages
	$(CARGO) test --locked
	$(CARGO) test --locked $(TESTS) --workspace

test-lisp: test-packages module sink
	tests/isolated $(EMACS) -Q --batch -L lisp -L tests/lisp -l tests/lisp/run.el

# What README.org says, on a fresh Debian, until the first mail has arrived.
first-mail: test-packages
	@tests/first-mail

# The ERT suites on several versions of Emacs; makes doc/client-table.org.
matrix: test-packages module sink
	@tests/matrix

lint: test-packages tests/fuzz/Cargo.lock
	$(CARGO) fmt --check
	$(CARGO) fmt $(TESTS) --package rs-smtpmail-tests --package smtp-test-server --check
	for features in '' --no-default-features; do \
	  $(CARGO) clippy --locked --all-targets $$features -- -D warnings && \
	  $(CARGO) clippy --locked $(TESTS) --workspace --all-targets $$features -- -D warnings \
	  || exit 1; \
	done
	$(CARGO) clippy --manifest-path tests/fuzz/Cargo.toml --no-default-features -- -D warnings
	for package in '' '$(TESTS) --workspace'; do \
	  RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked $$package --no-deps \
	    --document-private-items --quiet || exit 1; \
	done
	tests/isolated $(EMACS) -Q --batch -L lisp -l tests/lint.el $(LISP)

# The sources compile for other systems, too.
cross: build-packages
	@tests/cross

bench: test-packages module sink
	$(CARGO) build --release --locked $(TESTS) --example flush-bench
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

info: doc-packages $(MANUAL)

doc-packages:
	@sh tests/peers/packages.sh doc

$(MANUAL): doc/rs-smtpmail.org doc/client-table.org
	$(EMACS) -Q --batch -l ox-texinfo --visit $< --eval '(setq make-backup-files nil)' \
	  -f org-texinfo-export-to-texinfo
	makeinfo --no-split -o $@ doc/rs-smtpmail.texi

# Emacs with its own load-path, and nobody's init files.
ASK_EMACS = $(EMACS) -q --no-site-file --batch -l etc/install.el
FIND_LISPDIR = set -e; lispdir='$(LISPDIR)'; \
  [ -n "$$lispdir" ] || lispdir=$$($(ASK_EMACS) -f install-print-directory '$(PREFIX)'); \
  to='$(DESTDIR)'$$lispdir
REMOVE = rm -f "$$to"/rs-smtpmail.el "$$to"/rs-smtpmail-*.el "$$to"/rs-smtpmail.elc \
  "$$to"/rs-smtpmail-*.elc "$$to"/rs-smtpmail-module.*; rm -rf "$$to"/elpa/rs-smtpmail-[0-9]*

install: all
	@$(FIND_LISPDIR); echo "Lisp files and module go into $$to"; \
	$(REMOVE); \
	for package in $(STAGE)/elpa/*; do \
	  install -d "$$to/elpa/$${package##*/}"; \
	  install -m 644 "$$package"/* "$$to/elpa/$${package##*/}"; \
	done; \
	install -m 644 $(MODULE) lisp/rs-smtpmail-module.version "$$to"; \
	install -p -m 644 $(STAGE)/*.el $(STAGE)/*.elc "$$to"; \
	[ -n '$(DESTDIR)' ] || $(ASK_EMACS) -f install-check-directory "$$lispdir"
	@if [ -e $(MANUAL) ]; then \
	  install -d '$(DESTDIR)$(INFODIR)'; \
	  install -m 644 $(MANUAL) '$(DESTDIR)$(INFODIR)'; \
	  install-info '$(DESTDIR)$(INFODIR)/rs-smtpmail.info' '$(DESTDIR)$(INFODIR)/dir' || true; \
	else echo 'Without the manual, for makeinfo (texinfo) is not there'; fi

uninstall:
	@$(FIND_LISPDIR); echo "Lisp files and module go from $$to"; $(REMOVE); \
	rmdir "$$to/elpa" 2>/dev/null || true
	@info='$(DESTDIR)$(INFODIR)'; \
	if [ -e "$$info/rs-smtpmail.info" ]; then \
	  install-info --delete "$$info/rs-smtpmail.info" "$$info/dir" || true; \
	  rm -f "$$info/rs-smtpmail.info"; \
	  grep -q '^\* [^:]*: (' "$$info/dir" 2>/dev/null || rm -f "$$info/dir"; \
	fi

# Installs, looks with a user's Emacs, and removes.
test-install: all
	@tests/install

clean:
	$(CARGO) clean
	rm -f lisp/*.elc $(MODULE) lisp/rs-smtpmail-module.version doc/*.texi doc/*.info

.PHONY: all module sink build-packages test-packages doc-packages demo test test-rust \
  test-lisp test-install first-mail matrix cross lint bench fuzz info install uninstall clean
