#!/usr/bin/env bash
# Two Spigot gateways whose SAs Debian's own IKE daemons negotiate, unmodified,
# in the network of the other demo (../demo/lib.sh). At the start there is no SA:
# the first ping makes an ACQUIRE, that makes IKE, and that makes SAs. Then a
# small byte lifetime has them rekeyed under iperf3 while the ping goes on.
# Exits 0 only if all that it prints as "ok" was true.
#
#   PEER=charon|iked   the daemon of gw-b (charon); that of gw-a is charon
set -euo pipefail
cd "$(dirname "$0")"
# shellcheck source=examples/demo/lib.sh
source ../demo/lib.sh
need_root

peer=${PEER:-charon}
seconds=${SECONDS_EACH:-12} # of the measurement
lifetime=5000000            # bytes of an SA before charon rekeys it
rate=10M                    # of iperf3, bit/s
esp=aes256gcm16-esn
[[ $peer == iked ]] && esp=aes256-sha384
declare -A daemon_pid=()

cleanup() {
	local code=$?
	trap - EXIT INT TERM
	jobs -p | xargs -r kill 2>/dev/null || true
	net_down
	rm -rf "$secret"
	exit "$code"
}

# gateway_files SIDE CORE: a gateway without policies.
gateway_files() {
	cat >"$out/gw-$1.yaml" <<-YAML
		ports:
		  - {name: red0, side: protected}
		  - {name: wire0, side: wire}
		workers: {cores: [$2]}
		control: {socket: $out/gw-$1.sock, pfkey: $out/gw-$1-pfkey.sock, xfrm: $out/gw-$1-xfrm.sock}
		idle: {policy: adaptive, turns: 200}
	YAML
}

# keyd SIDE COMMAND...: runs a daemon of gw-SIDE, in the background.
keyd() {
	local side=$1
	spawn "gw-$side" "$spigotctl" keyd --pfkey "$out/gw-$side-pfkey.sock" --xfrm "$out/gw-$side-xfrm.sock" -- "${@:2}" \
		>"$out/ike-$side.log" 2>&1
	daemon_pid[$side]=$!
}

# charon_up SIDE ME PEER: strongSwan, whose policy is a trap. Both programs are
# copies, since a profile of AppArmor confines the originals to their folders.
charon_up() {
	local side=$1 dir=$secret/$1
	mkdir "$dir"
	cp "$(command -v charon-systemd)" "$(command -v swanctl)" "$dir"
	cat >"$dir/strongswan.conf" <<-CONF
		charon-systemd {
		  load = random nonce openssl kdf pem pkcs1 x509 pubkey socket-default kernel-netlink vici
		  install_routes = no
		  install_virtual_ip = no
		  delete_rekeyed_delay = 2
		  journal { default = -1 }
		  plugins { vici { socket = unix://$dir/vici } }
		  filelog { stderr { default = 1 } }
		}
		swanctl { load = pem pkcs1 x509 pubkey openssl random }
	CONF
	cat >"$dir/swanctl.conf" <<-CONF
		connections { net {
		  version = 2
		  local_addrs = 192.0.2.$2
		  remote_addrs = 192.0.2.$3
		  proposals = aes128-sha256-ecp256
		  local { auth = psk
		    id = gw$2 }
		  remote { auth = psk
		    id = gw$3 }
		  children { net {
		    local_ts = 10.$2.0.0/24
		    remote_ts = 10.$3.0.0/24
		    esp_proposals = $esp
		    start_action = trap
		    rekey_bytes = $lifetime
		    rand_bytes = 0
		    life_bytes = $((lifetime * 4)) } }
		} }
		secrets { ike-1 { id-1 = gw1
		  id-2 = gw2
		  secret = $psk } }
	CONF
	export STRONGSWAN_CONF=$dir/strongswan.conf SWANCTL_DIR=$dir
	keyd "$side" "$dir/charon-systemd"
	for _ in {1..100}; do
		if "$dir/swanctl" --load-all --noprompt --uri "unix://$dir/vici" >"$out/swanctl-$side.log" 2>&1; then return 0; fi
		sleep 0.1
	done
	cat "$out/swanctl-$side.log" "$out/ike-$side.log" >&2
	return 1
}

# iked_up SIDE ME PEER: OpenIKED, which waits for the other side.
iked_up() {
	cat >"$secret/iked.conf" <<-CONF
		ikev2 "net" passive esp from 10.$2.0.0/24 to 10.$3.0.0/24 local 192.0.2.$2 peer 192.0.2.$3 \\
		  ikesa auth hmac-sha2-256 enc aes-128 prf hmac-sha2-256 group ecp256 \\
		  childsa auth hmac-sha2-384 enc aes-256 srcid gw$2 dstid gw$3 psk "$psk"
	CONF
	keyd "$1" iked -d -v -f "$secret/iked.conf" -s "$secret/iked.sock"
	sleep 1
}

# spis SIDE: of the SAs that gw-SIDE has, a line each with the suite.
spis() { ctl "$1" sa | jq -r 'sort_by(.spi) | .[] | "\(.spi) \(.suite) esn=\(.esn)"'; }

# drops SIDE REASON: how many packets gw-SIDE dropped for it.
drops() { ctl "$1" drops | jq --arg r "$2" 'map(select(.reason == $r).total) | add // 0'; }

# sequence FILE: the sequence numbers that ping got an answer to.
sequence() { sed -n 's/.*icmp_seq=\([0-9]*\) .*/\1/p' "$1"; }

first_packet() {
	say "no SA; the first packet asks for one"
	check "gw-a has no SA" test -z "$(spis a)"
	check "gw-b has no SA" test -z "$(spis b)"
	count=$((seconds * 50))
	in_ns host-a ping -c $count -i 0.02 -W 2 10.2.0.2 >"$out/ping.log" &
	pinger=$!
	for _ in {1..100}; do
		[[ $(sequence "$out/ping.log" | wc -l) -gt 0 ]] && break
		sleep 0.1
	done
	spis a | sed 's/^/  gw-a SA /'
	check "both gateways have the same SAs" test -n "$(spis a)" -a "$(spis a)" = "$(spis b)"
	check "gw-a asked for an SA: $(drops a no_sa) packets waited in vain" test "$(drops a no_sa)" -gt 0
}

rekeyed() {
	say "iperf3 at $rate bit/s, an SA's lifetime of $lifetime bytes, while the ping goes on"
	local before after waited
	before=$(spis a) waited=$(drops a no_sa)
	spawn host-b iperf3 -s -1 >/dev/null 2>&1
	sleep 0.3
	in_ns host-a iperf3 -c 10.2.0.2 -b $rate -t $((seconds - 3)) -J >"$out/iperf-ike.json" || true
	wait "$pinger" || true
	after=$(spis a)
	local rekeys
	rekeys=$(grep -c 'inbound CHILD_SA .* established' "$out/ike-a.log" || true)
	check "SAs were rekeyed: $rekeys times" test "$before" != "$after" -a "$rekeys" -gt 0
	check "no packet met a missing SA since" test "$(drops a no_sa)" -eq "$waited"
	check "no packet came by an SA that was not there" test "$(drops a unknown_spi)" -eq 0 -a "$(drops b unknown_spi)" -eq 0
}

report() {
	say "report"
	local first got lost
	first=$(sequence "$out/ping.log" | sort -n | head -1)
	got=$(sequence "$out/ping.log" | sort -nu | wc -l)
	lost=$((count - ${first:-$count} + 1 - got))
	check "ping: $((${first:-1} - 1)) packets lost until the first SA" test -n "$first"
	check "ping: $lost of $((got + lost)) packets lost after it" test "$lost" -eq 0
	check "$(jq -r '"iperf3: \(.end.sum_received.bits_per_second / 1e4 | round / 100) Mbit/s, \(.end.sum_sent.retransmits) retransmits"' "$out/iperf-ike.json")" \
		jq -e '.end.sum_received.bits_per_second > 1e6' "$out/iperf-ike.json"
	in_ns gw-a "$spigotctl" keyd --xfrm "$out/gw-a-xfrm.sock" -- ip xfrm state | sed -n '/^src/p;/proto/p' | sed 's/^/  ip xfrm state: /'
}

stop() {
	say "stop"
	local side
	for side in a b; do
		kill -TERM "${daemon_pid[$side]}"
		check "the daemon of gw-$side exits 0 on SIGTERM" wait "${daemon_pid[$side]}"
	done
	check "the daemons have deleted their SAs" test -z "$(spis a)$(spis b)"
	for side in a b; do
		check "gw-$side exits 0 on SIGTERM, all frames home" gateway_down $side
	done
}

mkdir -p "$out"
rm -f "$out"/ike-?.log "$out/ping.log" "$out/iperf-ike.json"
umask 077 # iked insists
secret=$(mktemp -d)
psk=$(random_key 16)
trap cleanup EXIT INT TERM
say "network and gateways"
net_up
last=$(($(nproc) - 1))
gateway_files a 0
gateway_files b $last
gateway_up a
gateway_up b
say "key daemons: charon on gw-a, $peer on gw-b"
"${peer}_up" b 2 1
charon_up a 1 2
first_packet
rekeyed
report
stop
if [[ $failures -gt 0 ]]; then
	say "$failures of the above were not true; logs are in $out"
	exit 1
fi
say "all of it was true"
