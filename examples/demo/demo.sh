#!/usr/bin/env bash
# Two Spigot gateways in network namespaces carry real traffic through an ESP
# tunnel over AF_XDP, while the wire between them is watched. Exits 0 only if
# all that it prints as "ok" was true. KEEP=1 leaves everything running.
set -euo pipefail
cd "$(dirname "$0")"
# shellcheck source=examples/demo/lib.sh
source ./lib.sh
need_root

seconds=${SECONDS_EACH:-3} # of each throughput measurement
pattern=737069676f74       # "spigot", the payload of our pings

cleanup() {
	local code=$?
	trap - EXIT INT TERM
	if [[ -n ${KEEP:-} && $code -eq 0 ]]; then
		keep_note
		exit 0
	fi
	jobs -p | xargs -r kill 2>/dev/null || true
	net_down
	exit "$code"
}

keep_note() {
	cat <<-NOTE

		KEEP=1: both gateways are still running. To look around:
		  ip netns exec $run-host-a ping 10.2.0.2
		  ip netns exec $run-switch tcpdump -ni to-a
		  $spigotctl --socket $out/gw-a.sock show sa
		To end it:
		  kill ${gateway_pid[a]} ${gateway_pid[b]}; for n in host-a gw-a switch gw-b host-b; do ip netns del $run-\$n; done
	NOTE
}

ping_from() { in_ns "host-$1" ping -q -c 10 -i 0.05 -W 2 -s 200 -p $pattern "$2" | grep -q ' 0% packet loss'; }

# warm SIDE: the first packets find no neighbours yet; they make the kernel ask.
warm() { in_ns "host-$1" ping -q -c 20 -i 0.1 -W 1 "$2" >/dev/null || true; }

functional() {
	say "ping through the tunnel, the wire captured"
	warm a 10.2.0.2 && warm b 10.1.0.2 && warm a fd00:2::2
	spawn switch tcpdump -i to-b -w "$out/wire.pcap" -U --immediate-mode 2>"$out/tcpdump.log"
	local dump=$!
	sleep 1
	check "host-a pings host-b, IPv4" ping_from a 10.2.0.2
	check "host-b pings host-a, IPv4" ping_from b 10.1.0.2
	check "host-a pings host-b, IPv6" ping_from a fd00:2::2
	check "host-b pings host-a, IPv6" ping_from b fd00:1::2
	sleep 0.5
	kill "$dump"
	wait "$dump" || true
}

# packets FILTER [OPTION...]: how many packets of the capture match.
packets() { tshark -n -r "$out/wire.pcap" "${@:2}" -Y "$1" 2>/dev/null | wc -l; }

capture() {
	say "the capture of the wire"
	local gcm='AES-GCM with 16 octet ICV [RFC4106]'
	local -a decrypt=(-o esp.enable_encryption_decode:TRUE
		-o "uat:esp_sa:\"IPv4\",\"192.0.2.1\",\"192.0.2.2\",\"0x00001000\",\"$gcm\",\"0x$key_ab\",\"NULL\",\"\""
		-o "uat:esp_sa:\"IPv4\",\"192.0.2.2\",\"192.0.2.1\",\"0x00001001\",\"$gcm\",\"0x$key_ba\",\"NULL\",\"\"")
	local esp other echo4 echo6
	esp=$(packets esp) other=$(packets 'not esp and not arp')
	echo4=$(packets 'esp and icmp' "${decrypt[@]}") echo6=$(packets 'esp and icmpv6' "${decrypt[@]}")
	check "it holds ESP: $esp packets" test "$esp" -ge 80
	check "it holds nothing else but ARP: $other other packets" test "$other" -eq 0
	check "no payload in clear" bash -c "! grep -aq spigotspigot '$out/wire.pcap'"
	check "tshark decrypts ICMP in it: $echo4 packets" test "$echo4" -ge 40
	check "tshark decrypts ICMPv6 in it: $echo6 packets" test "$echo6" -ge 40
}

# iperf FROM TO-ADDRESS NAME OPTION...: its JSON goes to a file.
iperf() {
	local other=b
	[[ $1 == b ]] && other=a
	spawn "host-$other" iperf3 -s -1 >/dev/null 2>&1
	local server=$!
	sleep 0.3
	in_ns "host-$1" iperf3 -c "$2" -J -t "$seconds" "${@:4}" >"$out/iperf-$3.json" || true
	kill "$server" 2>/dev/null || true
	wait "$server" 2>/dev/null || true
}

# stream FROM TO NAME SRC DST: probes of spigen, as many as it may send.
stream() {
	"$spigen" --tx "eth0@$run-host-$1" --rx "eth0@$run-host-$2" --src "$4" --dst "$5" --flows 16 \
		--rate "${RATE:-100000}" --duration "${seconds}s" -q -o json >"$out/spigen-$3.json" 2>"$out/spigen-$3.log" ||
		cat "$out/spigen-$3.log" >&2
}

throughput() {
	say "throughput, a line a second"
	live &
	local lines=$!
	iperf a 10.2.0.2 tcp-a-b
	iperf b 10.1.0.2 tcp-b-a
	iperf a fd00:2::2 tcp6-a-b
	iperf a 10.2.0.2 udp-a-b -u -b 200M -l 1200
	iperf b 10.1.0.2 udp-b-a -u -b 200M -l 1200
	stream a b imix-a-b 10.1.0.2 10.2.0.2
	stream b a imix-b-a fd00:2::2 fd00:1::2
	kill "$lines" 2>/dev/null || true
	wait "$lines" 2>/dev/null || true
}

# bits NAME: Gbit/s that iperf3's receiver saw; 0 if it saw none.
bits() { jq -r '((.end.sum_received // .end.sum).bits_per_second // 0) / 1e9' "$out/iperf-$1.json" 2>/dev/null || echo 0; }

report() {
	say "report"
	local n g
	for n in tcp-a-b tcp-b-a tcp6-a-b; do
		g=$(bits $n)
		check "$(printf 'iperf3 %-9s %8.3f Gbit/s' $n "$g")" jq -en "$g > 0.01"
	done
	for n in udp-a-b udp-b-a; do
		g=$(bits $n)
		local lost
		lost=$(jq -r '.end.sum.lost_percent // 100' "$out/iperf-$n.json" 2>/dev/null || echo 100)
		check "$(printf 'iperf3 %-9s %8.3f Gbit/s  %.3f %% lost' $n "$g" "$lost")" jq -en "$g > 0.01 and $lost < 50"
	done
	for n in imix-a-b imix-b-a; do
		check "$(jq -r '"spigen \("'$n'") \(.rx_mpps*1000|round/1000) Mpps \(.rx_gbit_s*1000|round/1000) Gbit/s  \(.lost_packets) of \(.sent_packets) lost, \(.reordered_packets) reordered, latency us p50 \(.latency_us.p50) p99 \(.latency_us.p99)"' "$out/spigen-$n.json" 2>/dev/null || echo "spigen $n")" \
			jq -e '.received_packets > 1000 and .loss_ratio < 0.5' "$out/spigen-$n.json"
	done
	tables
}

tables() {
	local side
	for side in a b; do
		printf '\ngw-%s drops by reason\n' $side
		ctl $side drops | jq -r 'map(select(.total > 0)) | if length == 0 then "  none" else .[] | "  \(.reason)\t\(.total)\t\(.text)" end'
		printf 'gw-%s cycles a packet by stage (TSC, sampled turns)\n' $side
		ctl $side workers | jq -r '.[0].stages[] | select(.packets > 0) | "  \(.stage)\t\(.cycles_per_packet | round)"' | expand -t 16
		check "gw-$side counted every frame once: rx + injected + fragments = tx + punted + cut + joined + waiting + drops" balanced $side
	done
}

stop() {
	say "stop"
	local side
	for side in a b; do
		check "gw-$side exits 0 on SIGTERM, all frames home" gateway_down $side
	done
	check "no XDP program is left behind" bash -c "! ip -n $run-gw-a link show wire0 | grep -q xdp"
}

mkdir -p "$out"
trap cleanup EXIT INT TERM
begin=$SECONDS
say "network namespaces $run-{host-a,gw-a,switch,gw-b,host-b}"
net_up
keys_new
cores=$(nproc)
gateway_files a 0
gateway_files b $((cores > 1 ? 1 : 0))
gateway_up a
gateway_up b
"$spigotctl" --socket "$out/gw-a.sock" show ports
functional
capture
throughput
report
[[ -n ${KEEP:-} ]] || stop
say "$((SECONDS - begin)) s, $failures failed"
[[ $failures -eq 0 ]]
