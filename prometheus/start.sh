#!/bin/sh
# Makes a copy of the configuration whose rules have this installation's links and job names, and becomes Prometheus:
#
#   sh start.sh prometheus --config.file=/tmp/prometheus/prometheus.yml [flag …]
#
# or, for a Prometheus of your own, writes the rules alone; with --vmalert, for vmalert of VictoriaMetrics:
#
#   RULE_JOBS='app=shop|api alertmanager=alertmanager-main' sh start.sh --rules=/etc/prometheus/rules
#
# GRAFANA_URL       where the alerts' links to dashboards lead; default http://127.0.0.1:3000
# RUNBOOK_URL       where those to runbooks lead; default http://127.0.0.1:9090/user
# RULE_JOBS         names of jobs that are others there: name here=name there, several with |, each after a space
# REMOTE_WRITE_URL  where all samples are sent as well
# REPLICA           the name of this one of several that scrape the same: a label of what it sends, and of no alert
# SHARD             1/3: this is the first of three that share the targets; it evaluates no rules, for it lacks the rest
# RULES=off         the rules are evaluated elsewhere; an agent (--agent) can have none
# APP_REPLICAS      app:8000 service=orders: DNS has several addresses for this target, and each becomes a target with these labels
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

address='https?://[^][:space:]|&\"'"'"'{}]+'
for url in "GRAFANA_URL=$grafana" "RUNBOOK_URL=$runbooks"; do
  echo "$url" | grep -Eqx "[A-Z_]+=$address" || refuse "$url is no URL such as http://127.0.0.1:3000"
done

edits="s|http://127\.0\.0\.1:3000|${grafana%/}|g; s|http://127\.0\.0\.1:9090/user|${runbooks%/}|g"
for pair in ${RULE_JOBS:-}; do
  echo "$pair" | grep -Eqx '[a-z]+=[A-Za-z0-9_.|-]+' || refuse "RULE_JOBS: $pair is not name=name, or name=name|name"
  grep -Eq "job=~?\"([a-z]+\|)*${pair%%=*}[|\"]" "$here"/rules/*.yml || refuse "RULE_JOBS: $pair: no rule here names a job ${pair%%=*}; our name comes first, as in app=shop"
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

# layers DIRECTORY: the same for vmalert, in which what a group records is there for others a second or two later, and each
# group has a moment of its own within its interval. So groups follow one another: those of a file, and alerts last.
layers() {
  rules "$1"
  for file in "$1"/*.yml; do
    case $file in */monitoring.yml | */service.yml | */slo.yml) second=9 ;; *) second=0 ;; esac
    sed "$edits" "$here/rules/${file##*/}" | awk -v second=$second '
      /^  - name:/ { head = 1 }
      head && /^    (interval|rules):/ {
        if (!/interval/) print "    interval: 15s" # as prometheus.yml has it
        print "    eval_offset: " (/interval/ ? second : second % 15) "s"
        second += 3
        head = 0
      }
      { print }
    ' >"$file"
  done
}

case ${1:-} in
--rules=?*) rules "${1#--rules=}" && exit ;;
--vmalert=?*) layers "${1#--vmalert=}" && exit ;;
esac

config=
agent=
for flag in "$@"; do
  case $flag in
  --config.file=*) config=${flag#--config.file=} ;;
  --agent) agent=yes ;;
  esac
done
[ -n "$config" ] || refuse "start.sh: give the flag --config.file=FILE in a directory that is written, or --rules=DIRECTORY"

url=${REMOTE_WRITE_URL:-}
[ -z "$url" ] || echo "$url" | grep -Eqx "$address" || refuse "REMOTE_WRITE_URL=$url is no URL such as http://vminsert:8480/insert/0/prometheus/api/v1/write"
[ -z "$url" ] || ! grep -q '^remote_write:' "$here/prometheus.yml" || refuse "REMOTE_WRITE_URL=$url: prometheus.yml has a remote_write of its own: write the URL there"
replica=${REPLICA:-}
[ -z "$replica" ] || echo "$replica" | grep -Eqx '[A-Za-z0-9_.-]+' || refuse "REPLICA=$replica is no name such as a"
shard=${SHARD:-}
[ -z "$shard" ] || { echo "$shard" | grep -Eqx '[1-9][0-9]{0,3}/[1-9][0-9]{0,3}' && [ "${shard%/*}" -le "${shard#*/}" ]; } || refuse "SHARD=$shard is not such as 1/3, the first of three"
evaluate=${RULES:-on}
case $evaluate in on | off) ;; *) refuse "RULES=$evaluate is neither on nor off" ;; esac
[ -z "$agent$shard" ] || evaluate=off
[ "$evaluate" = on ] || [ -n "$url" ] || refuse "REMOTE_WRITE_URL is not set: without rules of its own this Prometheus has to send what it scrapes"

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

# edited FILE: prometheus.yml as this one needs it. It is read twice: the first time for what jobs and `global` have already.
edited() {
  awk -v old="$old" -v url="$url" -v replica="$replica" -v shard="${shard%/*}" -v shards="${shard#*/}" -v evaluate="$evaluate" -v replicas="$replicas" '
    BEGIN { split(replicas, part, " "); split(part[1], address, ":") }
    function mine() {
      print "      - {source_labels: [__address__], modulus: " shards ", target_label: __tmp_shard, action: hashmod}"
      print "      - {source_labels: [__tmp_shard], regex: \"" shard - 1 "\", action: keep}"
    }
    /^[a-z]/ { top = $1 }
    /^  - job_name:/ { job = $3 }
    NR == FNR && /^    relabel_configs:/ { relabels[job] = 1 }
    NR == FNR && /^  external_labels:/ { labels = 1 }
    NR == FNR { next }
    evaluate == "off" && (top == "rule_files:" || top == "alerting:") { next }
    old && /scrape_native_histograms:/ { next }
    replicas && job == "app" && /^    file_sd_configs:/ {
      print "    dns_sd_configs: [{names: [" address[1] "], type: A, port: " address[2] ", refresh_interval: 5s}]"
    }
    { print }
    replica && /^global:/ && !labels { print "  external_labels:\n    replica: " replica }
    replica && /^  external_labels:/ { print "    replica: " replica }
    replica && /^alerting:/ { print "  alert_relabel_configs:\n    - {action: labeldrop, regex: replica}" }
    shards && /^  - job_name:/ && !relabels[job] { print "    relabel_configs:"; mine() }
    shards && /^    relabel_configs:/ { mine() }
    replicas && job == "app" && /^    relabel_configs:/ {
      print "      - {source_labels: [__meta_filepath, __address__], regex: \".+;" part[1] "\", action: drop}"
      for (i = 2; i in part; i++) {
        split(part[i], label, "=")
        print "      - {source_labels: [__meta_dns_name], regex: " address[1] ", target_label: " label[1] ", replacement: " label[2] "}"
      }
    }
    # Classic histograms say the same as native ones, and every receiver understands them.
    END {
      if (url) print "\nremote_write:\n  - url: " url "\n    send_exemplars: true\n    send_native_histograms: false"
      if (url) print "    queue_config: {batch_send_deadline: 1s} # or the newest samples are 5 seconds late"
    }
  ' "$1" "$1"
}

# What is not changed stays where it is: a target file, or after a reload prometheus.yml, is read as soon as it is saved.
copy=$(dirname "$config")
mkdir -p "$copy" || refuse "$copy cannot be made: name a file in a writable directory in --config.file"
for entry in "$here"/*; do
  [ "${entry##*/}" = rules ] || ln -sfn "$entry" "$copy/${entry##*/}"
done
[ "$evaluate" = off ] || rules "$copy/rules"
if [ -n "$old$url$replica$shard$replicas" ]; then
  rm -f "$copy/prometheus.yml"
  edited "$here/prometheus.yml" >"$copy/prometheus.yml"
fi
[ -z "$shard" ] || [ "$(grep -c 'job_name:' "$copy/prometheus.yml")" = "$(grep -c 'action: hashmod' "$copy/prometheus.yml")" ] ||
  refuse "SHARD=$shard: write each job of prometheus.yml as it is shipped, beginning with \"  - job_name: \""
[ -z "$replicas" ] || grep -q "names: \[${replicas%%:*}\]" "$copy/prometheus.yml" || refuse "APP_REPLICAS=$replicas: write the job app of prometheus.yml as it is shipped, with file_sd_configs and relabel_configs"

exec "$@"
