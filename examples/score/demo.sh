#!/usr/bin/env bash
# From packets to anomaly scores, in two network namespaces of its own: captures normal traffic, trains a model on it,
# then watches live while a port scan and a bulk exfiltration run beside normal traffic. Fails unless both stand out.
#
# Needs root, and a network for Python's packages the first time. FEATURE_AGENT_BIN: a built program; else it is built.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
target="$here/../../target"
venv="$target/venv"
say() { echo "demo: $*" >&2; }
die() { say "$*"; exit 1; }

[ "$(id -u)" = 0 ] || die "run me as root: I make network namespaces and watch an interface"
mkdir -p "$target"

install() {
    command -v apt-get >/dev/null || die "$1 is missing: install it"
    say "installing $1"
    { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$@"; } >&2
}
command -v ip >/dev/null || install iproute2
command -v python3 >/dev/null || install python3 python3-venv

# Debian's python3 has no ensurepip without python3-venv.
python3 -c 'import ensurepip, venv' 2>/dev/null || install python3-venv
if ! cmp -s "$here/requirements.txt" "$venv/installed.txt"; then
    say "installing Python's packages into $venv"
    python3 -m venv --clear "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check -r "$here/requirements.txt" >&2 ||
        die "pip could not install what requirements.txt lists: the demo needs PyPI the first time it runs"
    cp "$here/requirements.txt" "$venv/installed.txt"
fi
python="$venv/bin/python3"

agent="${FEATURE_AGENT_BIN:-}"
if [ -z "$agent" ]; then
    (cd "$here/../.." && cargo build --release --package feature-agent)
    agent="$target/release/feature-agent"
fi

export PYTHONDONTWRITEBYTECODE=1
work="$(mktemp -d)"
client="score$$a" server="score$$b"
cleanup() {
    local running
    running="$(jobs -p)"
    # shellcheck disable=SC2086 # one word a process
    [ -z "$running" ] || kill $running 2>/dev/null || true
    wait || true
    for namespace in "$client" "$server"; do
        ip netns del "$namespace" 2>/dev/null || true
    done
    rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 1' INT TERM

ip netns add "$client"
ip netns add "$server"
ip -n "$client" link add score0 type veth peer name score1 netns "$server"
for side in "$client 10.77.0.1 score0" "$server 10.77.0.2 score1"; do
    read -r namespace address link <<<"$side"
    ip netns exec "$namespace" sysctl -qw net.ipv6.conf.all.disable_ipv6=1 2>/dev/null || true
    ip -n "$namespace" address add "$address/24" dev "$link"
    ip -n "$namespace" link set "$link" up
    ip -n "$namespace" link set lo up
done

# Starts traffic.py in a namespace; it ends with its input, a pipe that we hold, and says when it is ready.
background() {
    local namespace="$1" ready="$2"
    shift 2
    mkfifo "$work/$ready"
    ip netns exec "$namespace" "$python" "$here/traffic.py" "$@" <"$work/$ready" >"$work/$ready.out" &
    exec {held}>"$work/$ready"
    for _ in $(seq 200); do
        if grep -q "$ready" "$work/$ready.out"; then return; fi
        sleep 0.1
    done
    die "traffic.py $* is not $ready after 20 s"
}
traffic() { ip netns exec "$client" "$python" "$here/traffic.py" "$@"; }

flows=(--min-gap 20ms)
background "$server" serving serve

say "normal traffic, captured for 12 s"
background "$client" capturing capture score0 "$work/normal.pcap"
capturing="$held" capturer="$!"
traffic normal 12
sleep 0.5
exec {capturing}>&-
wait "$capturer"

say "training"
"$agent" replay "$work/normal.pcap" "${flows[@]}" --quiet --output "parquet:$work/normal.parquet"
"$python" "$here/train.py" --model "$work/model.onnx" "$work/normal.parquet"

say "live: normal traffic, then a port scan and an exfiltration beside it"
ip netns exec "$client" "$agent" --iface score0 "${flows[@]}" --latency low --shape array \
    --output "unix:$work/features.sock" 2>"$work/agent.err" &
watcher=$!
"$python" "$here/score.py" --model "$work/model.onnx" --socket "$work/features.sock" \
    >"$work/scores.tsv" 2>"$work/latency" &
scorer=$!
for _ in $(seq 200); do
    if [ -s "$work/scores.tsv" ] && grep -q ready "$work/agent.err"; then break; fi
    kill -0 "$watcher" 2>/dev/null || die "the agent ended: $(cat "$work/agent.err")"
    sleep 0.1
done
traffic normal 12 &
normal=$!
sleep 2
traffic scan
traffic exfiltrate
wait "$normal"
sleep 0.5
kill "$watcher"
wait "$watcher" || die "the agent failed: $(cat "$work/agent.err")"
wait "$scorer" || die "score.py failed: $(cat "$work/latency")"

"$python" "$here/verdict.py" <"$work/scores.tsv"
cat "$work/latency"
