#!/bin/sh
# Becomes Alertmanager, after it has checked the receiver's secret and written the configuration:
#
#   sh start.sh alertmanager --config.file=/tmp/alertmanager.yml [flag …]
#
# ALERT_RECEIVER        none (default), discord, slack, email or webhook
# ALERT_SECRET_FILE     discord, slack, webhook: the URL, alone on its line. email: lines smarthost=host:port, from=,
#                       to=, and where they are needed username= and password=, require_tls=false
# ALERT_HEARTBEAT_FILE  optional: the URL that gets the dead-man's switch every minute and alarms when it stops
#
# Alertmanager takes a missing or malformed secret without a word and then tells nobody: so the check stands here.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
config=
for flag in "$@"; do
  case $flag in --config.file=*) config=${flag#--config.file=} ;; esac
done

refuse() {
  echo "$*" >&2
  exit 1
}

[ -n "$config" ] || refuse "start.sh: give the flag --config.file=FILE, which is written"
# They would be patterns for Alertmanager, or end the text that they stand in.
case $here in *[]\[*?\\\'[:cntrl:]]*) refuse "$here: put these files into a directory without * ? [ ] ' and \\ in its path" ;; esac

# check SETTING FILE: it is there, may be read and is not empty.
check() {
  [ -n "$2" ] || refuse "$1 is not set: ALERT_RECEIVER=$receiver needs the file with its secret there"
  case $2 in *[\"\\[:cntrl:]]*) refuse "$1=$2: name a file without \", \\ and line feeds in its path" ;; esac
  [ -e "$2" ] || refuse "$1=$2: there is no such file"
  [ -f "$2" ] && [ -r "$2" ] || refuse "$1=$2 cannot be read by user $(id -u): make it a file that this user may read (chmod 644 in a directory of your own)"
  grep -q '[^[:space:]]' "$2" || refuse "$1=$2 is empty: $3"
}

# plain TEXT: the text as sed takes it for the replacement in s|…|…|.
plain() {
  printf '%s\n' "$1" | sed 's/[&|]/\\&/g'
}

# url SETTING FILE PATTERN EXAMPLE: it holds one URL and nothing else. Without TLS only on this machine.
url() {
  check "$1" "$2" "write a URL such as $4 into it"
  ! grep -Eq '^http://' "$2" || grep -Eqx "$3" "$2" || refuse "$1=$2 is malformed: http:// would send the secret in plain text; write https://, as in $4"
  grep -Eqx "$3" "$2" && [ "$(grep -c '' "$2")" = 1 ] || refuse "$1=$2 is malformed: it must hold one line with a URL such as $4"
}

# value KEY: what the e-mail secret says for it, or nothing.
value() {
  sed -n "s/^$1=//p" "$secret"
}

email() {
  example="lines such as smarthost=smtp.example.com:587"
  check ALERT_SECRET_FILE "$secret" "write $example into it"
  ! grep -Evq '^(smarthost|from|to|username|password|require_tls)=[^"\\]+$|^$' "$secret" ||
    refuse "ALERT_SECRET_FILE=$secret is malformed: each line is smarthost=, from=, to=, username=, password= or require_tls= with a value without quotes and backslashes"
  for key in smarthost from to; do
    [ "$(grep -c "^$key=" "$secret")" = 1 ] || refuse "ALERT_SECRET_FILE=$secret is malformed: it needs one line $key="
  done
  value smarthost | grep -Eqx '[^:[:space:]]+:[0-9]+' || refuse "ALERT_SECRET_FILE=$secret is malformed: smarthost=$(value smarthost) is not host:port"
  for key in from to; do
    value $key | grep -Eq '[^@[:space:]]+@[^@[:space:]]+' || refuse "ALERT_SECRET_FILE=$secret is malformed: $key=$(value $key) is no address"
  done
  tls=$(value require_tls)
  case ${tls:=true} in true | false) ;; *) refuse "ALERT_SECRET_FILE=$secret is malformed: require_tls=$tls is neither true nor false" ;; esac
  cat <<END
        smarthost: "$(value smarthost)"
        from: "$(value from)"
        to: "$(value to)"
        require_tls: $tls
END
  if [ -n "$(value username)$(value password)" ]; then
    [ -n "$(value username)" ] && [ -n "$(value password)" ] || refuse "ALERT_SECRET_FILE=$secret is malformed: username= and password= go together"
    printf '        auth_username: "%s"\n        auth_password: "%s"\n' "$(value username)" "$(value password)"
  fi
}

receiver=${ALERT_RECEIVER:-none}
secret=${ALERT_SECRET_FILE:-}
account=
safe='(https://[^/[:space:]]+|http://(127\.0\.0\.1|localhost)(:[0-9]+)?)'
case $receiver in
none) ;;
discord) url ALERT_SECRET_FILE "$secret" "$safe/api/webhooks/[0-9]+/[A-Za-z0-9_-]+/?(\?[^[:space:]]*)?" https://discord.com/api/webhooks/123/abc ;;
slack) url ALERT_SECRET_FILE "$secret" "$safe/(services|hooks|workflows|triggers)/[A-Za-z0-9_/-]+" https://hooks.slack.com/services/T0/B0/abc ;;
webhook) url ALERT_SECRET_FILE "$secret" 'https?://[^/[:space:]]+(/[^[:space:]]*)?' https://example.com/alerts ;;
email) account=$(email) ;;
*) refuse "ALERT_RECEIVER=$receiver is unknown: use none, discord, slack, email or webhook" ;;
esac

heartbeat=${ALERT_HEARTBEAT_FILE:-}
[ -z "$heartbeat" ] || url ALERT_HEARTBEAT_FILE "$heartbeat" 'https?://[^/[:space:]]+(/[^[:space:]]*)?' https://example.com/ping/abc

umask 077 # the account's password is in it
# Not into a file that is there: others may read that one, or it may be a link to another.
{ rm -f "$config" && (set -C && : >"$config"); } 2>/dev/null ||
  refuse "$config cannot be written: name a file in a writable directory in --config.file"
{
  sed -e '/^receivers:/,$d' -e "s|templates/|$(plain "$here")/templates/|" "$here/alertmanager.yml"
  echo "receivers:"
  sed "s|@secret@|$(plain "$secret")|" "$here/receivers/$receiver.yml"
  [ -z "$account" ] || echo "$account"
  if [ -n "$heartbeat" ]; then
    sed "s|@secret@|$(plain "$heartbeat")|" "$here/receivers/heartbeat.yml"
  else
    echo "  - name: heartbeat"
  fi
} >"$config"

exec "$@"
