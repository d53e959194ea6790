#!/bin/sh
# Makes a copy of the configuration whose rules have this installation's links and job names, and becomes Prometheus:
#
#   sh start.sh prometheus --config.file=/tmp/prometheus/prometheus.yml [flag …]
#
# or, for a Prometheus of your own, writes the rules alone:
#
#   RULE_JOBS='app=shop|api alertmanager=alertmanager-main' sh start.sh --rules=/etc/prometheus/rules
#
# GRAFANA_URL   where the alerts' links to dashboards lead; default http://127.0.0.1:3000
# RUNBOOK_URL   where those to runbooks lead; default http://127.0.0.1:9090/user
# RULE_JOBS     names of jobs that are others there: name here=name there, several with |, each after a space
# APP_REPLICAS  app:8000 service=orders: DNS has several addresses for this target, and each becomes a target with these labels
#
# Rules know no environment. External labels would carry the links on every series that leaves by remote_write.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
grafana=${GRAFANA_URL:-http://127.0.0.1:3000}
runbooks=${RUNBOOK_URL:-http://127.0.0.1:9090/user}

refuse() {
  echo "$*" >&2
  exit 1
}

for url in "GRAFANA_URL=$grafana" "RUNBOOK_URL=$runbooks"; do
  echo "$url" | grep -Eqx '[A-Z_]+=https?://[^][:space:]|&\"'"'"'{}]+' || refuse "$url is no URL such as http://127.0.0.1:3000"
done

edits="s|http://127\.0\.0\.1:3000|${grafana%/}|g; s|http://127\.0\.0\.1:9090/user|${runbooks%/}|g"
for pair in ${RULE_JOBS:-}; do
  echo "$pair" | grep -Eqx '[a-z]+=[A-Za-z0-9_.|-]+' || refuse "RULE_JOBS: $pair is not name=name, or name=name|name"
  there=$(echo "${pair#*=}" | sed 's/|/\\|/g')
  # In a matcher of one job, and in a list of several.
  edits="$edits; s|job=\"${pair%%=*}\"|job=~\"$there\"|g; /job=~/s|\([\"\|]\)${pair%%=*}\([\"\|]\)|\1$there\2|g"
done

# rules DIRECTORY: write the copy of the rules there.
rules() {
  mkdir -p "$1" || refuse "$1 cannot be made: name a writable directory"
  for file in "$here"/rules/*.yml; do
    sed "$edits" "$file" >"$1/${file##*/}" || refuse "$1 cannot be written: name a writable directory"
  done
}

case ${1:-} in
--rules=?*) rules "${1#--rules=}" && exit ;;
esac

config=
for flag in "$@"; do
  case $flag in --config.file=*) config=${flag#--config.file=} ;; esac
done
[ -n "$config" ] || refuse "start.sh: give the flag --config.file=FILE in a directory that is written, or --rules=DIRECTORY"

# All but the rules stays where it is: a target file, or after a reload prometheus.yml, is read as soon as it is saved.
copy=$(dirname "$config")
mkdir -p "$copy" || refuse "$copy cannot be made: name a file in a writable directory in --config.file"
for entry in "$here"/*; do
  [ "${entry##*/}" = rules ] || ln -sfn "$entry" "$copy/${entry##*/}"
done
rules "$copy/rules"

replicas=${APP_REPLICAS:-}
[ -z "$replicas" ] || echo "$replicas" | grep -Eqx '[A-Za-z0-9.-]+:[0-9]+( [a-z]+=[A-Za-z0-9_.-]+)*' || refuse "APP_REPLICAS=$replicas is not host:port with labels such as service=orders, each after a space"

# Before 3.8 a feature flag, and no key of a job, asks for native histograms.
old=
case $("$1" --version 2>&1 | sed -n 's/.*version \([0-9]*\.[0-9]*\).*/\1/p; q') in
[0-2].* | 3.[0-7])
  old=yes
  set -- "$@" --enable-feature=native-histograms
  ;;
esac

# edited FILE: prometheus.yml as this one needs it.
edited() {
  awk -v old="$old" -v replicas="$replicas" '
    BEGIN { split(replicas, part, " "); split(part[1], address, ":") }
    /^  - job_name:/ { job = $3 }
    old && /scrape_native_histograms:/ { next }
    replicas && job == "app" && /^    file_sd_configs:/ {
      print "    dns_sd_configs: [{names: [" address[1] "], type: A, port: " address[2] ", refresh_interval: 5s}]"
    }
    { print }
    replicas && job == "app" && /^    relabel_configs:/ {
      print "      - {source_labels: [__meta_filepath, __address__], regex: \".+;" part[1] "\", action: drop}"
      for (i = 2; i in part; i++) {
        split(part[i], label, "=")
        print "      - {source_labels: [__meta_dns_name], regex: " address[1] ", target_label: " label[1] ", replacement: " label[2] "}"
      }
    }
  ' "$1"
}

if [ -n "$old$replicas" ]; then
  rm -f "$copy/prometheus.yml"
  edited "$here/prometheus.yml" >"$copy/prometheus.yml"
fi
[ -z "$replicas" ] || grep -q "names: \[${replicas%%:*}\]" "$copy/prometheus.yml" || refuse "APP_REPLICAS=$replicas: write the job app of prometheus.yml as it is shipped, with file_sd_configs and relabel_configs"

exec "$@"
