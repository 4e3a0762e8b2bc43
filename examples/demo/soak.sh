#!/usr/bin/env bash
# The demo's two gateways at full rate for DURATION seconds, both ways at once,
# with the fault wrapper on all their ports: frames are lost, corrupted, cut,
# doubled, reordered, and taken short. At the end every frame must be home and
# every packet counted once.
set -euo pipefail
cd "$(dirname "$0")"
# shellcheck source=examples/demo/lib.sh
source ./lib.sh
need_root

duration=${DURATION:-600}
# shellcheck disable=SC2034 # read by gateway_files
FAULTS='faults: {seed: 7, rx_lose: 0.01, rx_corrupt: 0.01, rx_truncate: 0.01, rx_duplicate: 0.01, rx_reorder: 0.02, tx_short: 0.05, tx_lose: 0.01}'

cleanup() {
	local code=$?
	trap - EXIT INT TERM
	jobs -p | xargs -r kill 2>/dev/null || true
	net_down
	exit "$code"
}

# stream FROM TO SRC DST: probes at full rate, in the background.
stream() {
	"$spigen" --tx "eth0@$run-host-$1" --rx "eth0@$run-host-$2" --src "$3" --dst "$4" --dport "$5" --flows 64 \
		--duration "${duration}s" -q -o json >"$out/soak-$1-$2.json" &
}

# faults SIDE: how many packets were dropped for what the wrapper did to them.
faults() { ctl "$1" drops | jq '[.[] | select(.reason | IN("runt", "bad_ip_header", "auth_failed", "replay_seen", "replay_old", "bad_mac", "tx_full", "bad_ethertype")) | .total] | add'; }

mkdir -p "$out"
trap cleanup EXIT INT TERM
net_up
keys_new
gateway_files a 0
gateway_files b $(($(nproc) > 1 ? 1 : 0))
gateway_up a
gateway_up b
in_ns host-a ping -q -c 20 -i 0.1 -W 1 10.2.0.2 >/dev/null || true
say "$duration s at full rate, both ways, with faults"
stream a b 10.1.0.2 10.2.0.2 9
first=$!
# A port of its own: a sender's interface takes the packets of its port.
stream b a fd00:2::2 fd00:1::2 10 || true
second=$!
live &
lines=$!
wait "$first"
wait "$second"
kill "$lines"
wait "$lines" 2>/dev/null || true

say "report"
for pair in a-b b-a; do
	check "$(jq -r '"'$pair': \(.sent_packets) sent, \(.received_packets) received, \(.loss_ratio * 100 | round) % lost, \(.duplicate_packets) doubled, \(.reordered_packets) reordered"' "$out/soak-$pair.json")" \
		jq -e '.received_packets > 10000' "$out/soak-$pair.json"
done
for side in a b; do
	ctl $side drops | jq -r '.[] | select(.total > 0) | "      gw-'$side' \(.reason)\t\(.total)"'
	check "gw-$side met faults: $(faults $side) drops" test "$(faults $side)" -gt 100
	check "gw-$side counted every frame once: rx + injected + fragments = tx + punted + cut + joined + waiting + drops" balanced $side
done
for side in a b; do
	check "gw-$side exits 0 on SIGTERM, all frames home" gateway_down $side
	grep 'frames home' "$out/gw-$side.log"
done
say "$failures failed"
[[ $failures -eq 0 ]]
