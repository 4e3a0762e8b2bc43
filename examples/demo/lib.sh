# shellcheck shell=bash
# The demo's network and gateways, as functions for demo.sh and soak.sh:
#
#   host-a --- red0 [gw-a] wire0 --- switch --- wire0 [gw-b] red0 --- host-b
#   10.1.0.2   10.1.0.1   192.0.2.1           192.0.2.2   10.2.0.1   10.2.0.2
#   fd00:1::2  fd00:1::1                                  fd00:2::1  fd00:2::2
#
# Each is a network namespace of its own, joined by veth; nothing outside is touched.

run=spigot-$$
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
out=${OUT:-$top/demo.out}
spigot=$top/bin/spigot spigotctl=$top/bin/spigotctl
# shellcheck disable=SC2034 # for the scripts that source this
spigen=$top/bin/spigen
declare -A gateway_pid=()
failures=0

say() { printf '\n== %s\n' "$*"; }

# check TEXT COMMAND...: runs the command and keeps count of what was not true.
check() {
	local text=$1
	shift
	if "$@" >/dev/null; then echo "ok    $text"; else
		echo "FAIL  $text"
		failures=$((failures + 1))
	fi
}

need_root() {
	[[ $(id -u) -eq 0 ]] && return
	echo "$0: needs root: it makes network namespaces and AF_XDP sockets (try sudo make demo)" >&2
	exit 1
}

in_ns() { ip netns exec "$run-$1" "${@:2}"; }

# spawn NS COMMAND...: in the background; $! is the command itself, because
# `ip netns exec` becomes it.
spawn() { ip netns exec "$run-$1" "${@:2}" & }

# cable NS-A DEV-A NS-B DEV-B: a veth pair, up at both ends.
cable() {
	ip -n "$run-$1" link add "$2" type veth peer name "$4" netns "$run-$3"
	local ns dev
	for ns in "$1 $2" "$3 $4"; do
		read -r ns dev <<<"$ns"
		# A veth hands over packets as its sender has them: unfinished checksums
		# and joined segments would be sealed as they are.
		in_ns "$ns" ethtool -K "$dev" tx off tso off gso off gro off >/dev/null 2>&1
		ip -n "$run-$ns" link set "$dev" up
	done
}

net_up() {
	local ns side n
	for ns in host-a gw-a switch gw-b host-b; do
		ip netns add "$run-$ns"
		in_ns "$ns" sysctl -qw net.ipv6.conf.default.accept_dad=0 net.ipv6.conf.default.accept_ra=0
		[[ $ns == host-* ]] || in_ns "$ns" sysctl -qw net.ipv6.conf.default.router_solicitations=0
		# New namespaces take over the machine's setting, and a kernel that forwards does it in clear.
		in_ns "$ns" sysctl -qw net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0
		ip -n "$run-$ns" link set lo up
	done
	in_ns switch sysctl -qw net.ipv6.conf.default.disable_ipv6=1
	ip -n "$run-switch" link add br0 type bridge
	ip -n "$run-switch" link set br0 up
	for side in a b; do
		n=$([[ $side == a ]] && echo 1 || echo 2)
		cable "host-$side" eth0 "gw-$side" red0
		cable "gw-$side" wire0 switch "to-$side"
		ip -n "$run-switch" link set "to-$side" master br0
		ip -n "$run-host-$side" addr add "10.$n.0.2/24" dev eth0
		ip -n "$run-host-$side" addr add "fd00:$n::2/64" dev eth0
		ip -n "$run-gw-$side" addr add "10.$n.0.1/24" dev red0
		ip -n "$run-gw-$side" addr add "fd00:$n::1/64" dev red0
		in_ns "gw-$side" sysctl -qw net.ipv6.conf.wire0.disable_ipv6=1
		ip -n "$run-gw-$side" addr add "192.0.2.$n/24" dev wire0
		ip -n "$run-host-$side" route add default via "10.$n.0.1"
		ip -n "$run-host-$side" route add default via "fd00:$n::1"
	done
}

net_down() {
	local ns
	for ns in host-a gw-a switch gw-b host-b; do
		if ip netns pids "$run-$ns" 2>/dev/null | xargs -r kill -9 2>/dev/null; then :; fi
		ip netns del "$run-$ns" 2>/dev/null || true
	done
}

random_key() { od -An -v -tx1 -N "$1" /dev/urandom | tr -d ' \n'; }

# keys_new: fresh keys for this run, 16 bytes and a salt of 4 for each direction.
keys_new() { key_ab=$(random_key 20) key_ba=$(random_key 20); }

# gateway_files SIDE CORE: configuration and ipsec.conf of gw-SIDE. FAULTS may
# hold lines for the configuration's end.
gateway_files() {
	local side=$1 core=$2 me=1 peer=2 spis=0x1000:0x1001 keys=0x$key_ab:0x$key_ba
	if [[ $side == b ]]; then me=2 peer=1 spis=0x1001:0x1000 keys=0x$key_ba:0x$key_ab; fi
	cat >"$out/gw-$side.yaml" <<-YAML
		ports:
		  - {name: red0, side: protected}
		  - {name: wire0, side: wire}
		workers: {cores: [$core]}
		control: {socket: $out/gw-$side.sock, pfkey: $out/gw-$side-pfkey.sock, xfrm: $out/gw-$side-xfrm.sock}
		idle: {policy: adaptive, turns: 200}
		ipsec: gw-$side.conf
		# Both ends get new keys at each start, so that no IV is ever repeated.
		allow_manual_aead: true
		${FAULTS:-}
	YAML
	(
		umask 077
		cat >"$out/gw-$side.conf" <<-CONF
			me = "192.0.2.$me"
			peer = "192.0.2.$peer"
			flow esp from 10.$me.0.0/24 to 10.$peer.0.0/24 local \$me peer \$peer
			flow esp from fd00:$me::/64 to fd00:$peer::/64 local \$me peer \$peer
			esp tunnel from \$me to \$peer spi $spis enc aes-128-gcm \\
			    enckey $keys replay 1024
		CONF
	)
}

# gateway_up SIDE: starts gw-SIDE and waits until it answers.
gateway_up() {
	local side=$1
	spawn "gw-$side" "$spigot" run --config "$out/gw-$side.yaml" >"$out/gw-$side.log" 2>&1
	gateway_pid[$side]=$!
	for _ in {1..100}; do
		if ctl "$side" ports >/dev/null 2>&1; then return 0; fi
		kill -0 "${gateway_pid[$side]}" 2>/dev/null || break
		sleep 0.1
	done
	echo "gw-$side did not start:" >&2
	cat "$out/gw-$side.log" >&2
	return 1
}

# gateway_down SIDE: SIGTERM, and the exit code that followed.
gateway_down() {
	kill -TERM "${gateway_pid[$1]}" 2>/dev/null
	wait "${gateway_pid[$1]}"
}

ctl() { "$spigotctl" --socket "$out/gw-$1.sock" show "$2" -o json; }

# counts SIDE: "rx_bytes tx dropped" of all workers.
counts() {
	ctl "$1" workers | jq -r '[map(.rx_bytes), map(.tx), map(.dropped)] | map(add) | @tsv'
}

# live: a line a second about both gateways, until killed.
live() {
	local -A was=([a]="0 0 0" [b]="0 0 0")
	local side line now b0 t0 d0 b1 t1 d1
	while sleep 1; do
		line=
		for side in a b; do
			now=$(counts "$side" 2>/dev/null) || continue
			read -r b0 t0 d0 <<<"${was[$side]}"
			read -r b1 t1 d1 <<<"$now"
			was[$side]=$now
			line+=$(printf 'gw-%s %8d pps %9.3f Gbit/s %6d dropped   ' "$side" $((t1 - t0)) \
				"$(jq -n "($b1 - $b0) * 8 / 1e9")" $((d1 - d0)))
		done
		echo "  $(date +%T)  $line"
	done
}

# balanced SIDE: every frame received was counted exactly once.
balanced() { ctl "$1" workers | jq -e 'all(.balanced)'; }
