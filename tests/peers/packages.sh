#!/bin/sh
# Sees to it that the programs and libraries from outside are there.
#
#     tests/peers/packages.sh build    what building and the demo need; with GPGME=no, without GPGME
#     tests/peers/packages.sh test     what the tests and benchmarks need beyond that
#     tests/peers/packages.sh fuzz     what `make fuzz' needs beyond what building does
#     tests/peers/packages.sh doc      what the manual needs
#     tests/peers/packages.sh list     prints the Debian packages of all, and installs nothing
#
# As root on Debian it installs what is missing: without a question, without starting a service.
# Elsewhere it says what to install by hand, and exits with status 3; with 0 if nothing is missing.
set -eu

# Daemons live in sbin, which an ordinary user's PATH may lack.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

build='gcc libc6-dev pkg-config libgpgme-dev emacs-nox'
test='postfix dovecot-core openssl stunnel4 gnutls-bin msmtp curl gnupg emacs-el elpa-package-lint
mu4e notmuch elpa-notmuch tmux debootstrap'
fuzz=g++
doc=texinfo

case ${1-} in
build)
    packages=$build
    [ "${GPGME-}" != no ] || packages=$(echo "$packages" | sed 's/libgpgme-dev//')
    others='dnf install gcc pkgconf-pkg-config gpgme-devel emacs-nox
    pacman -S gcc pkgconf gpgme emacs-nox
    brew install pkgconf gpgme emacs'
    ;;
test)
    packages=$test
    others='dnf install postfix dovecot openssl stunnel gnutls-utils msmtp curl gnupg2
    pacman -S postfix dovecot openssl stunnel gnutls msmtp curl gnupg
    brew install dovecot openssl stunnel gnutls msmtp curl gnupg     (Postfix comes with macOS)
and the Emacs package package-lint'
    ;;
fuzz)
    packages=$fuzz
    others='dnf install gcc-c++
    pacman -S gcc'
    ;;
doc)
    packages=$doc
    others='dnf install texinfo
    pacman -S texinfo
    brew install texinfo'
    ;;
list)
    echo "$build $test $fuzz $doc"
    exit 0
    ;;
*)
    echo "usage: ${0##*/} build|test|fuzz|doc|list" >&2
    exit 2
    ;;
esac

# Whether what the package is for is there, whoever installed it.
is_there() {
    case $1 in
    gcc) command -v cc ;;
    g++) command -v c++ ;;
    texinfo) command -v makeinfo ;;
    libc6-dev) echo '#include <stdlib.h>' | cc -E - ;;
    pkg-config) command -v pkg-config ;;
    libgpgme-dev) pkg-config --exists gpgme gpg-error ;;
    emacs-nox) command -v "${EMACS:-emacs}" ;;
    dovecot-core) command -v dovecot ;;
    gnupg) command -v gpg ;;
    gnutls-bin) command -v gnutls-cli ;;
    mu4e) ls -d /usr/share/emacs/site-lisp/elpa*/mu4e* ;;
    elpa-notmuch) ls -d /usr/share/emacs/site-lisp/elpa/notmuch-* ;;
    # check-declare looks functions up in Emacs's sources.
    emacs-el) ls /usr/share/emacs/*/lisp/mail/smtpmail.el* ;;
    elpa-package-lint) ls -d /usr/share/emacs/site-lisp/elpa/package-lint-* ;;
    *) command -v "$1" ;;
    esac >/dev/null 2>&1
}

missing=
for package in $packages; do
    is_there "$package" || missing="$missing $package"
done
if [ -z "$missing" ]; then
    exit 0
fi
echo "missing:$missing"

if [ "$(id -u)" -ne 0 ] || [ ! -e /etc/debian_version ]; then
    cat >&2 <<END
Something is not installed that is needed here. Install it with one of
    apt-get install $packages
    $others
END
    case $missing in
    *libgpgme-dev*) echo 'or do without GPGME: make GPGME=no' >&2 ;;
    esac
    exit 3
fi

# Two runs at once would take each other's policy for the system's.
exec 9>/var/lock/rs-smtpmail-packages.lock
flock 9

# While packages are installed no service may start. A policy that is there comes back afterwards.
policy=/usr/sbin/policy-rc.d
mark='# rs-smtpmail: while packages for its tests are installed'
restore_policy() {
    if grep -qsxF "$mark" "$policy"; then
        rm -f "$policy"
    fi
    if [ -e "$policy.rs-smtpmail-saved" ]; then
        mv "$policy.rs-smtpmail-saved" "$policy"
    fi
}
trap restore_policy EXIT
trap 'exit 1' HUP INT TERM
restore_policy
if [ -e "$policy" ]; then
    mv "$policy" "$policy.rs-smtpmail-saved"
fi
printf '#!/bin/sh\n%s\nexit 101\n' "$mark" >"$policy"
chmod 755 "$policy"

export DEBIAN_FRONTEND=noninteractive
case $missing in
*postfix*)
    echo 'postfix postfix/main_mailer_type select No configuration' | debconf-set-selections
    ;;
esac
install() {
    # shellcheck disable=SC2086 # one word for each
    apt-get install -y -q --no-install-recommends \
        -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold \
        $missing </dev/null
}
# The lists may be old, or never have been fetched.
install || { apt-get update -q && install; }

# Nor at the next boot: the tests start daemons of their own.
for package in $missing; do
    case $package in
    postfix) units=postfix.service ;;
    dovecot-core) units='dovecot.service dovecot.socket' ;;
    stunnel4) units=stunnel.target ;;
    *) continue ;;
    esac
    # shellcheck disable=SC2086
    systemctl disable $units >/dev/null 2>&1 || true
done
