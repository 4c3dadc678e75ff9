#!/usr/bin/env bash
# A Postfix of the tests' own, with Dovecot for SASL, on loopback ports.
#
#     tests/peers/postfix.sh DIR start
#     tests/peers/postfix.sh DIR stop
#
# `start` returns when all ports answer and DIR/env is there: lines KEY='VALUE', with
#
#     SUBMISSION_PORT   STARTTLS and AUTH are required
#     SMTPS_PORT        implicit TLS; AUTH is required
#     PLAIN_PORT        no TLS; AUTH is offered, not required
#     BARE_PORT         no TLS, no AUTH, no extension at all
#     CA_FILE           the authority that signed the certificate (localhost, 127.0.0.1, ::1)
#     USER PASSWORD     with PLAIN, LOGIN, CRAM-MD5, SCRAM-SHA-1 and SCRAM-SHA-256
#     TOKEN             with XOAUTH2 and OAUTHBEARER
#     MAILDIR           where all mail goes, whatever its address: one file for each recipient, who
#                       is in its X-Original-To
#     LOG_DIR           the logs of both
#
# Each line of DIR/services, if there is such a file before, is a further server: a name, NAME, whose
# port is then in NAME_PORT; and options for smtpd, which asks nobody for AUTH.
#
# No mail leaves the machine. Recipients whose local part is "unknown" get 550, those with "later" 451.
# Nothing outside DIR and a directory in TMPDIR is touched: neither /etc/postfix nor a Postfix that
# the system runs. `stop` ends whatever `start` has begun, and leaves mail and logs in DIR/stopped.
# TMPDIR must have a short name and be open to all: so is /tmp, and that of tests/isolated.
#
# Exit status 3: it can't run here (it needs root, Postfix and Dovecot).
[ -n "${BASH_VERSION-}" ] || exec bash "$0" "$@"
set -euo pipefail
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
umask 022

usage() {
    echo "usage: ${0##*/} DIR start|stop" >&2
    exit 2
}
[ $# -eq 2 ] || usage
mkdir -p "$1"
dir=$(cd "$1" && pwd)

scale=${RS_SMTPMAIL_TEST_TIMEOUT_SCALE:-1}
# In steps of 50 ms.
patience=$(awk -v scale="$scale" 'BEGIN { print int(scale * 30 / 0.05) }')

# Waits until the command succeeds; fails after the deadline.
wait_until() {
    local step
    for ((step = 0; step < patience; step++)); do
        if "$@"; then
            return 0
        fi
        sleep 0.05
    done
    return 1
}

# Whether something on the port sends a greeting.
greets() {
    # The complaint about a refused port is no news.
    (exec 3<>"/dev/tcp/127.0.0.1/$1" && read -r -t 5 code _ <&3 && [ "$code" = 220 ]) 2>/dev/null
}

accepts() {
    (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

# The daemons give up root, and must still get to their files: DIR may be closed to them, or too
# deep for a socket's name. So the working files are in a directory of their own, DIR/state.
state=
submission_port='' smtps_port='' plain_port='' bare_port=''
declare -A service_port=()
if [ -L "$dir/state" ]; then
    state=$(readlink "$dir/state")
    if [[ $state != /*/rs-smtpmail-peer.* ]]; then
        echo "${0##*/}: $dir/state is not ours" >&2
        exit 1
    fi
fi

# The masters of both, and whatever was starting them: they have our configuration as a word of
# their command line, or in MAIL_CONFIG. (Tests may well have other names of ours in theirs.)
# The masters' children end with them.
ours() {
    local process
    [ -n "$state" ] || return 0
    for process in /proc/[0-9]*; do
        if cat "$process/cmdline" "$process/environ" 2>/dev/null | tr '\0' '\n' |
            grep -axF -e "$state/postfix" -e "MAIL_CONFIG=$state/postfix" \
                -e "$state/dovecot/dovecot.conf" >/dev/null; then
            echo "${process#/proc/}"
        fi
    done
}

none_left() {
    [ -z "$(ours)" ]
}

end_processes() {
    local signal pids
    for signal in TERM KILL; do
        pids=$(ours)
        [ -n "$pids" ] || return 0
        # shellcheck disable=SC2086 # one word for each
        kill "-$signal" $pids 2>/dev/null || true
        if wait_until none_left; then
            return 0
        fi
    done
    return 1
}

stop() {
    if [ -z "$state" ] || [ ! -d "$state" ]; then
        rm -f "$dir/state" "$dir/env"
        return
    fi
    rm -f "$dir/env"
    end_processes
    rm -rf "$dir/stopped"
    mkdir "$dir/stopped"
    cp -R "$state/mail" "$state/log" "$dir/stopped/" 2>/dev/null || true
    rm -rf "$state" "$dir/state"
}

make_certificates() {
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 \
        -subj "/CN=Test authority" -keyout ca.key -out ca.pem \
        -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=localhost" \
        -keyout server.key -out server.csr
    printf '%s\n' 'subjectAltName=DNS:localhost,IP:127.0.0.1,IP:::1' \
        'basicConstraints=critical,CA:FALSE' 'extendedKeyUsage=serverAuth' >server.ext
    openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 365 \
        -extfile server.ext -out server.pem
    cat ca.pem >>server.pem
}

base64url() {
    openssl base64 -A | tr '+/' '-_' | tr -d '='
}

# A token that Dovecot can check by itself: a JWT signed with the key that it has.
make_token() {
    local key=$1 head body
    head=$(printf '{"alg":"HS256","typ":"JWT","kid":"default"}' | base64url)
    body=$(printf '{"sub":"user","iat":%d,"exp":%d}' $(($(date +%s) - 60)) \
        $(($(date +%s) + 864000)) | base64url)
    printf '%s.%s.' "$head" "$body"
    printf '%s.%s' "$head" "$body" | openssl dgst -sha256 -hmac "$key" -binary | base64url
}

configure_dovecot() {
    mkdir -p dovecot/run dovecot/state dovecot/keys/default/HS256 queue/private
    chown postfix queue/private
    chmod 700 queue/private
    echo 'user:{PLAIN}pass word' >dovecot/passwd
    local key
    key=$(openssl rand -hex 32)
    printf %s "$key" | openssl base64 -A >dovecot/keys/default/HS256/default
    make_token "$key" >token
    cat >dovecot/oauth2.conf <<END
introspection_mode = local
local_validation_key_dict = fs:posix:prefix=$state/dovecot/keys/
username_attribute = sub
END
    # Readable by the daemons alone, who run as the user of that name.
    chown -R root:dovecot dovecot/passwd dovecot/keys dovecot/oauth2.conf
    chmod 640 dovecot/passwd dovecot/oauth2.conf dovecot/keys/default/HS256/default
    cat >dovecot/dovecot.conf <<END
protocols =
base_dir = $state/dovecot/run
state_dir = $state/dovecot/state
log_path = $state/log/dovecot.log
auth_verbose = yes
ssl = no
disable_plaintext_auth = no
auth_mechanisms = plain login cram-md5 scram-sha-1 scram-sha-256 xoauth2 oauthbearer
passdb {
  driver = passwd-file
  mechanisms = plain login cram-md5 scram-sha-1 scram-sha-256
  args = $state/dovecot/passwd
}
passdb {
  driver = oauth2
  mechanisms = xoauth2 oauthbearer
  args = $state/dovecot/oauth2.conf
}
service auth {
  unix_listener $state/queue/private/auth {
    mode = 0660
    user = postfix
    group = postfix
  }
}
service anvil {
  chroot =
}
service stats {
  chroot =
}
END
}

configure_postfix() {
    mkdir -p postfix queue data mail
    chown postfix data
    chown nobody:nogroup mail 2>/dev/null || chown nobody mail
    cat >postfix/main.cf <<END
compatibility_level = 3.6
queue_directory = $state/queue
data_directory = $state/data
maillog_file = $state/log/postfix.log
maillog_file_prefixes = $state
mail_owner = postfix
myhostname = mail.example.org
mydestination =
inet_interfaces = loopback-only
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
alias_maps =
alias_database =

# All mail goes to one Maildir; none leaves the machine.
virtual_mailbox_domains = example.org, example.com, localhost
virtual_mailbox_base = $state
virtual_mailbox_maps = static:mail/
virtual_uid_maps = static:$(id -u nobody)
virtual_gid_maps = static:$(id -g nobody)
virtual_mailbox_limit = 0
mailbox_size_limit = 0
message_size_limit = 104857600
default_transport = virtual
relay_transport = virtual
notify_classes =

smtpd_tls_cert_file = $state/server.pem
smtpd_tls_key_file = $state/server.key
smtpd_tls_loglevel = 1
smtpd_tls_received_header = yes
smtpd_sasl_type = dovecot
smtpd_sasl_path = private/auth
smtpd_sasl_security_options = noanonymous
smtpd_sasl_authenticated_header = yes

rcpt_rules = regexp:{ {/^unknown@/ 550 5.1.1 No such user here} {/^later@/ 451 4.7.1 Greylisted, come again later} }
smtpd_recipient_restrictions = check_recipient_access \$rcpt_rules, permit_mynetworks
smtpd_relay_restrictions = permit_mynetworks, permit_sasl_authenticated, reject
submission_restrictions = check_recipient_access \$rcpt_rules, permit_sasl_authenticated, reject
submission_relay_restrictions = permit_sasl_authenticated, reject

# The content arrives as it was sent, or not at all.
local_header_rewrite_clients =
smtpd_forbid_bare_newline = reject
smtpd_forbid_bare_newline_exclusions =
smtpd_forbid_unauth_pipelining = yes

# Nothing that slows tests down.
smtpd_error_sleep_time = 0
in_flow_delay = 0
smtpd_client_connection_rate_limit = 0
smtpd_client_connection_count_limit = 0
smtpd_client_message_rate_limit = 0
END
    local auth="-o smtpd_sasl_auth_enable=yes"
    local required="-o smtpd_recipient_restrictions=\$submission_restrictions
  -o smtpd_relay_restrictions=\$submission_relay_restrictions"
    cat >postfix/master.cf <<END
127.0.0.1:$submission_port inet n - n - - smtpd
  -o syslog_name=submission -o smtpd_tls_security_level=encrypt
  $auth $required
127.0.0.1:$smtps_port inet n - n - - smtpd
  -o syslog_name=smtps -o smtpd_tls_security_level=encrypt -o smtpd_tls_wrappermode=yes
  $auth $required
127.0.0.1:$plain_port inet n - n - - smtpd
  -o syslog_name=plain -o smtpd_tls_security_level=none
  $auth
127.0.0.1:$bare_port inet n - n - - smtpd
  -o syslog_name=bare -o smtpd_tls_security_level=none
  -o smtpd_discard_ehlo_keywords=pipelining,size,vrfy,etrn,starttls,auth,enhancedstatuscodes,8bitmime,dsn,smtputf8,chunking
$(further_services)
cleanup   unix n - n - 0 cleanup
qmgr      unix n - n 300 1 qmgr
tlsmgr    unix - - n 1000? 1 tlsmgr
rewrite   unix - - n - - trivial-rewrite
bounce    unix - - n - 0 bounce
defer     unix - - n - 0 bounce
trace     unix - - n - 0 bounce
verify    unix - - n - 1 verify
flush     unix n - n 1000? 0 flush
proxymap  unix - - n - - proxymap
proxywrite unix - - n - 1 proxymap
error     unix - - n - - error
retry     unix - - n - - error
discard   unix - - n - - discard
virtual   unix - n n - - virtual
anvil     unix - - n - 1 anvil
postlog   unix-dgram n - n - 1 postlogd
END
}

further_services() {
    local name options
    [ -e "$dir/services" ] || return 0
    while read -r name options; do
        echo "127.0.0.1:${service_port[$name]} inet n - n - - smtpd"
        echo "  -o syslog_name=$name $options"
    done <"$dir/services"
}

choose_ports() {
    local -A taken=()
    local name port _
    free_port() {
        # Below the range from which the kernel takes ephemeral ports.
        while port=$((20000 + RANDOM % 12000)) && { [[ -v taken[$port] ]] || accepts "$port"; }; do
            :
        done
        taken[$port]=1
    }
    for name in submission_port smtps_port plain_port bare_port; do
        free_port
        printf -v "$name" %s "$port"
    done
    [ -e "$dir/services" ] || return 0
    while read -r name _; do
        free_port
        service_port[$name]=$port
    done <"$dir/services"
}

ports_answer() {
    local port
    for port in "$smtps_port" "${service_port[@]}"; do
        accepts "$port" || return 1
    done
    greets "$submission_port" && greets "$plain_port" && greets "$bare_port"
}

# Runs Postfix on free ports; another process may take one in between, so more than once.
start_postfix() {
    local try
    for try in 1 2 3 4 5; do
        choose_ports
        configure_postfix
        if postfix -c "$state/postfix" start && wait_until ports_answer; then
            return 0
        fi
        postfix -c "$state/postfix" abort || true
        grep -q 'fatal: bind' "$state/log/postfix.log" || return 1
        mv "$state/log/postfix.log" "$state/log/postfix-$try.log"
    done
    return 1
}

start() {
    local problem=
    [ "$(id -u)" -eq 0 ] || problem="root is needed to run Postfix"
    local program
    for program in postfix dovecot openssl; do
        command -v "$program" >/dev/null || problem="$program is missing (see packages.sh)"
    done
    if [ -n "$problem" ]; then
        echo "${0##*/}: $problem" >&2
        exit 3
    fi
    if [ -e "$dir/state" ] || [ -L "$dir/state" ]; then
        echo "${0##*/}: started already in $dir; stop it first" >&2
        exit 1
    fi
    state=$(mktemp -d "${TMPDIR:-/tmp}/rs-smtpmail-peer.XXXXXX")
    ln -s "$state" "$dir/state"
    chmod 711 "$state"
    cd "$state"
    mkdir log
    trap give_up EXIT
    trap 'exit 1' HUP INT TERM
    make_certificates >log/openssl.log 2>&1
    configure_dovecot
    dovecot -c "$state/dovecot/dovecot.conf" >log/dovecot-start.log 2>&1
    wait_until test -S "$state/queue/private/auth"
    # smtpd does not greet before it has found Dovecot.
    start_postfix >log/postfix-start.log 2>&1
    cat >env.new <<END
SUBMISSION_PORT='$submission_port'
SMTPS_PORT='$smtps_port'
PLAIN_PORT='$plain_port'
BARE_PORT='$bare_port'
CA_FILE='$state/ca.pem'
USER='user'
PASSWORD='pass word'
TOKEN='$(cat token)'
MAILDIR='$state/mail'
LOG_DIR='$state/log'
END
    local name
    for name in "${!service_port[@]}"; do
        echo "${name}_PORT='${service_port[$name]}'" >>env.new
    done
    cp env.new "$dir/env.new"
    mv "$dir/env.new" "$dir/env"
    trap - EXIT
    cat "$dir/env"
}

# On the way out of a `start` that failed.
give_up() {
    local status=$?
    trap - EXIT
    echo "${0##*/}: could not start; the logs say:" >&2
    tail -n 20 "$state"/log/*.log >&2 || true
    stop
    exit "$status"
}

case $2 in
start) start ;;
stop) stop ;;
*) usage ;;
esac
