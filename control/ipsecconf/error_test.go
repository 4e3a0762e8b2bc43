package ipsecconf

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"

	"pgregory.net/rapid"
)

func TestErrorsSayWhereAndHow(t *testing.T) {
	const sa, ah = "esp from 192.0.2.1 to 192.0.2.2 ", "ah from 192.0.2.1 to 192.0.2.2 "
	k20 := strings.Repeat("ab", 20)
	for _, c := range []struct{ text, want string }{
		// Words.
		{"flow from 10.0.0.1\\\n # no\n", `t.conf:2:6: found the end of the line: want "to" and an address`},
		{"\n  bogus x", `t.conf:2:3: unknown statement "bogus": want one of flow, esp, ah, include, name = "value"`},
		{"flow from \"10.0.0.1", `t.conf:1:11: the string is not closed: add " on this line`},
		{"flow from ;) to", `t.conf:1:11: ";" is no address: write it in numbers, names are not resolved`},
		{"flow \\ from", `t.conf:1:6: character '\\' does not belong here: put it in quotes or remove it`},
		{"flow from { 10.0.0.1 to\n 10.0.0.2\n", `t.conf:1:11: "{" is not closed: add "}" behind the list`},
		{"flow from { } to any type deny", `t.conf:1:11: the list is empty: want an address in it`},
		{"flow from { { any } } to any type deny", `t.conf:1:13: a list within a list: leave out the inner braces`},
		{"flow from any to any type deny deny", `t.conf:1:32: unknown option "deny" of a flow: want one of local, peer, type, mode, reqid, bundle, priority, pfp, icmp-type`},
		{"flow from any to any peer any pfp", `t.conf:1:34: unknown field the end of the line for pfp: want one of src, dst, proto, ports, all`},
		{"flow from any to any peer any pfp { src, sport }", `t.conf:1:42: unknown field "sport" for pfp: want one of src, dst, proto, ports, all`},
		{"flow from any to any peer any pfp ports", `t.conf:1:31: ports say nothing without the protocol: write "pfp { proto ports }", or name one by "proto"`},
		{"flow in from any to any peer any pfp all", `t.conf:1:34: "pfp" is for flows that go out: what comes in has its SA`},
		{"flow from any to any type bypass pfp all", `t.conf:1:34: "pfp" has no meaning for a flow that uses no SA: leave it out, or the type bypass or deny`},
		{"flow from any to any peer 192.0.2.2 bundle", `t.conf:1:43: found the end of the line: want one of esp, ah`},
		{"flow from any to any peer 192.0.2.2 bundle { }", `t.conf:1:44: the list is empty: want an SA in it`},
		{"flow from any to any peer 192.0.2.2 bundle { esp tcp }", `t.conf:1:50: found "tcp": want one of esp, ah`},
		{"flow from any to any peer 192.0.2.2 bundle { esp esp ah ah }", `t.conf:1:44: 4 SAs around the flow's own: 3 at most`},
		{"flow from any to any peer 192.0.2.2 bundle { esp reqid 1 reqid 2 }", `t.conf:1:58: "reqid" is given twice: leave one out`},
		{"flow from any to any peer 192.0.2.2 bundle esp local 192.0.2.1 peer 2001:db8::1", `t.conf:1:80: local 192.0.2.1 and peer 2001:db8::1 are of different families: an SA goes between two addresses of one`},
		{"flow from any to any type deny bundle ah", `t.conf:1:32: "bundle" has no meaning for a flow that uses no SA: leave it out, or the type bypass or deny`},
		// Macros.
		{"flow from $gw to any", `t.conf:1:11: macro "gw" is not defined: write NAME = "..." above this line`},
		{"flow from $ to any", `t.conf:1:11: "$" without the name of a macro: write $name`},
		{"a = \"$a\"\nflow from $a to any", `t.conf:2:11: macro "a" uses itself, or macros are more than 16 deep`},
		{"a =", `t.conf:1:1: macro "a" has no value: write it behind "="`},
		{"from = x", `t.conf:1:1: "from" cannot be a macro's name, because it is a keyword: choose another`},
		{"a-b = x", `t.conf:1:1: "a-b" cannot be a macro's name: use letters, digits and "_", a letter first`},
		{"2b = x", `t.conf:1:1: "2b" cannot be a macro's name: use letters, digits and "_", a letter first`},
		// Flows.
		{"flow esp out", `t.conf:1:13: found the end of the line: want one of esp, ah, in, out, proto, from, to`},
		{"flow in out from any to any", `t.conf:1:9: "the direction" is given twice: leave one out`},
		{"flow ipcomp from any to any", `t.conf:1:6: compression (IPComp) is not offered: leave it out on both peers`},
		{"flow from any from any", `t.conf:1:15: found "from": want "to" and an address`},
		{"flow to any 10.0.0.1", `t.conf:1:13: found "10.0.0.1": want "from" and an address`},
		{"flow from fw.example.net to any", `t.conf:1:11: "fw.example.net" is no address: write it in numbers, names are not resolved`},
		{"flow from 10.0.0.0/33 to any", `t.conf:1:11: "10.0.0.0/33" is no prefix: write it as 192.0.2.0/24 or 2001:db8::/32`},
		{"flow from ::ffff:10.0.0.0/104 to any", `t.conf:1:11: "::ffff:10.0.0.0/104" reaches into ::ffff:0:0/96, which stands for IPv4: write an IPv4 prefix`},
		{"flow from ::ffff:10.0.0.1 to any", `t.conf:1:11: "::ffff:10.0.0.1" is an IPv4 address in IPv6's clothes: write 10.0.0.1`},
		{"flow from fe80::1%eth0 to any", `t.conf:1:11: address "fe80::1%eth0" has a zone: policies know addresses only, leave "%eth0" out`},
		{"flow from 10.0.0.9 - 10.0.0.1 to any", `t.conf:1:11: the range 10.0.0.9 - 10.0.0.1 is upside down: swap its ends`},
		{"flow from 10.0.0.9 - ::1 to any", `t.conf:1:11: the range 10.0.0.9 - ::1 mixes IPv4 and IPv6: write two`},
		{"flow from 10.0.0.9 (10.0.0.1) to any", `t.conf:1:20: translation of addresses, "(", is not offered: let the flow name the addresses that packets have`},
		{"flow from 10.0.0.0/8 to 10.0.0.0/8", `t.conf:1:25: no peer for 10.0.0.0/8, which is no single host: add "peer ADDRESS" or "peer any"`},
		{"flow in from 10.0.0.0/8 to 10.0.0.1", `t.conf:1:14: no peer for 10.0.0.0/8, which is no single host: add "peer ADDRESS" or "peer any"`},
		{"flow from 10.0.0.0/8 to 224.0.0.1", `t.conf:1:25: 224.0.0.1 cannot be the peer: add "peer ADDRESS" or "peer any"`},
		{"flow from 10.0.0.0/8 to any peer 0.0.0.0", `t.conf:1:34: "0.0.0.0" is the address of no host: give the one that peer has on the wire`},
		{"flow from 10.0.0.1 to 2001:db8::1", `t.conf:1:23: the sources and destinations are of different families: no packet can match`},
		{"flow from any to any local 10.0.0.1 peer ::1", `t.conf:1:37: local 10.0.0.1 and peer ::1 are of different families: an SA goes between two addresses of one`},
		{"flow from any to 10.0.0.1 local ::1", `t.conf:1:27: local ::1 and peer 10.0.0.1 are of different families: an SA goes between two addresses of one`},
		{"flow from any to any peer 10.0.0.1 type deny", `t.conf:1:22: "peer" has no meaning for a flow that uses no SA: leave it out, or the type bypass or deny`},
		{"flow from any to any type allow", `t.conf:1:27: unknown type "allow" of a flow: want one of use, acquire, require, dontacq, bypass, deny`},
		{"flow from any to any type deny icmp-type 8", `t.conf:1:32: "icmp-type" needs ICMP: add "proto icmp" or "proto ipv6-icmp" before "from"`},
		{"flow proto { icmp tcp } from any to any type deny icmp-type 8", `t.conf:1:51: "icmp-type" needs ICMP: add "proto icmp" or "proto ipv6-icmp" before "from"`},
		{"flow from any to any port opaque type deny", `t.conf:1:22: a port needs a protocol that has ports: add "proto tcp" or "proto udp" before "from"`},
		{"flow proto tcp from any port 80 to any port opaque type deny", `t.conf:1:40: no packet shows the port of one end only: write two flows, one with numbers and one with "port opaque" at both ends`},
		{"flow proto tcp from any port { opaque 80 } to any port 80 type deny", `t.conf:1:51: no packet shows the port of one end only: write two flows, one with numbers and one with "port opaque" at both ends`},
		{"flow out proto tcp from 10.0.0.1 port opaque to 10.0.0.2 pfp all", `t.conf:1:58: "pfp" takes ports from packets, and "opaque" is for packets without: leave one of the two out`},
		{"flow out proto icmp from 10.0.0.1 to 10.0.0.2 icmp-type opaque pfp ports", `t.conf:1:64: "pfp" takes ports from packets, and "opaque" is for packets without: leave one of the two out`},
		{"flow proto icmp from any to any type deny icmp-type 256", `t.conf:1:53: icmp-type is "256": want a number from 0 to 255`},
		{"flow from any to any type deny type deny", `t.conf:1:32: "type" is given twice: leave one out`},
		{"flow from any to any peer any mode tunnle", `t.conf:1:36: found "tunnle": want one of tunnel, transport`},
		{"flow from any to any peer any reqid 0", `t.conf:1:37: reqid is "0": want a number from 1 to 4294967295`},
		{"flow from any to any peer any srcid me", `t.conf:1:31: "srcid" is the key daemon's: write it into the daemon's own configuration`},
		{"flow from any port 80 to any type deny", `t.conf:1:15: a port needs a protocol that has ports: add "proto tcp" or "proto udp" before "from"`},
		{"flow proto { tcp icmp } from any to any port 80 type deny", `t.conf:1:41: a port needs a protocol that has ports: add "proto tcp" or "proto udp" before "from"`},
		{"flow proto tcp from any to any port htpt type deny", `t.conf:1:37: unknown service "htpt": write the port's number`},
		{"flow proto tcp from any to any port 65536 type deny", `t.conf:1:37: port is "65536": want a number from 0 to 65535`},
		{"flow proto tcp from any to any port 9:1 type deny", `t.conf:1:37: the port range 9 - 1 is upside down: swap its ends`},
		{"flow proto tpc from any to any", `t.conf:1:12: unknown protocol "tpc": write its number`},
		{"flow proto 0 from any to any", `t.conf:1:12: protocol is "0": want a number from 1 to 255`},
		// Other people's rules.
		{"ike esp from any to any", `t.conf:1:1: keys that are negotiated come from a key daemon: write this into the daemon's own configuration (iked.conf, swanctl.conf)`},
		{"tcpmd5 from any to any", `t.conf:1:1: TCP MD5 signatures belong to the TCP of the host, not to a gateway: remove the rule`},
		{"ipcomp from any to any", `t.conf:1:1: compression (IPComp) is not offered: leave it out on both peers`},
		{"flow from 10.0.0.0/8 to 239.1.0.0/16 peer 239.9.9.9", `t.conf:1:38: nothing comes from the group 239.9.9.9: write "flow out" for what goes to it, and "flow in .. local 239.9.9.9" for what others send to it`},
		{"flow in from 10.0.0.0/8 to 239.1.0.0/16 peer 239.9.9.9", `t.conf:1:41: nothing comes from the group 239.9.9.9: write "flow out" for what goes to it, and "flow in .. local 239.9.9.9" for what others send to it`},
		{"flow out from 10.0.0.0/8 to 239.1.0.0/16 local ff15::1 peer ff15::2", `t.conf:1:56: nothing is sent from the group ff15::1: write "flow in"`},
		{"flow in from 224.0.0.1 to 10.0.0.0/8", `t.conf:1:14: 224.0.0.1 cannot be the peer: add "peer ADDRESS" or "peer any"`},
		{"flow out from 10.0.0.1 to 10.0.0.2 bundle esp tunnel local 10.0.0.1 peer 239.1.1.1", `t.conf:1:74: "239.1.1.1" is a multicast group: give the address of a host for peer`},
		{"esp from any to 239.0.0.0/8", `t.conf:1:17: an SA goes from one host to one host: give a single address (networks belong into a flow)`},
		{"esp from 239.1.1.1 to 239.1.1.2", `t.conf:1:10: 239.1.1.1 is a multicast group, and packets come from hosts: give the sender's address`},
		{"esp from 10.0.0.1 to ff15::1", `t.conf:1:22: an SA from 10.0.0.1 to ff15::1: both ends must be of one family`},
		{"esp from 10.0.0.1 to 239.1.1.1 spi 0x1000:0x1001", `t.conf:1:43: nothing comes back from the group 239.1.1.1: leave the second SPI out, and give each sender an SA`},
		{"ah from any to any", `t.conf:1:9: an SA goes from one host to one host: give a single address (networks belong into a flow)`},
		{ah + "spi 300 enc null", `t.conf:1:40: AH does not encrypt: leave enc out, or write esp`},
		{ah + "spi 300 authkey " + k32 + " enckey " + k32, `t.conf:1:120: ah takes no key: leave enckey out`},
		{ah + "spi 300", `t.conf:1:36: the authkey is missing: hmac-sha2-256 takes 32 bytes in hex`},
		{sa + "spi 300 cpu 1024", `t.conf:1:45: cpu is "1024": want a number from 0 to 1023`},
		{sa + "spi 300 cpu", `t.conf:1:44: found the end of the line: want cpu`},
		{sa + "spi 300 cpu 1 cpu 2", `t.conf:1:47: "cpu" is given twice: leave one out`},
		{sa + "spi 300 cpu 1 dummy 5", `t.conf:1:41: dummy packets go by the SA that serves all workers: leave out cpu, or dummy`},
		{sa + "spi 300 for-dscp 64", `t.conf:1:50: codepoint is "64": want a number from 0 to 63`},
		{sa + "spi 300 for-dscp", `t.conf:1:49: found the end of the line: want a codepoint`},
		{sa + "spi 300 for-dscp { }", `t.conf:1:50: the list is empty: want a codepoint in it`},
		{sa + "spi 300 for-dscp { 46:34 }", `t.conf:1:52: codepoint is "46:34": want a number from 0 to 63`},
		{sa + "spi 300 for-dscp { 34 46 0x22 }", `t.conf:1:58: "codepoint 34" is given twice: leave one out`},
		{sa + "spi 300 for-dscp 34 for-dscp 46", `t.conf:1:53: "for-dscp" is given twice: leave one out`},
		{sa + "spi 300 for-dscp 34 cpu 1", `t.conf:1:41: an SA for some codepoints is for all workers, and sends no dummy packets: leave out for-dscp, or cpu and dummy`},
		{sa + "spi 300 for-dscp 34 dummy 5", `t.conf:1:41: an SA for some codepoints is for all workers, and sends no dummy packets: leave out for-dscp, or cpu and dummy`},
		{sa + "spi 300 align4", `t.conf:1:41: align4 is for ah over IPv4: leave it out`},
		{"ah from 2001:db8::1 to 2001:db8::2 spi 300 align4", `t.conf:1:44: align4 is for ah over IPv4: leave it out`},
		{sa + "spi 300 enc null auth aes-gmac", `t.conf:1:55: aes-gmac is for ah: with esp, "enc aes-128-gmac" does the same`},
		{ah + "spi 300:301 auth aes-gmac authkey " + k20 + ":" + k20, `t.conf:1:107: this is the key at t.conf:1:66, too: aes-gmac would use one IV twice with it, which betrays both packets; give each SA and direction its own key`},
		{sa + "spi 300 bundle x", `t.conf:1:41: SAs are bundled by the flow that uses them: write "bundle" there`},
		// SAs.
		{"esp from 10.0.0.0/8 to 192.0.2.2", `t.conf:1:10: an SA goes from one host to one host: give a single address (networks belong into a flow)`},
		{"esp from 10.0.0.1 to any", `t.conf:1:22: an SA goes from one host to one host: give a single address (networks belong into a flow)`},
		{"esp from 10.0.0.1 to ::1", `t.conf:1:22: an SA from 10.0.0.1 to ::1: both ends must be of one family`},
		{sa, `t.conf:1:1: the SA has no SPI: add "spi 0x1000", or "spi 0x1000:0x1001" for both directions`},
		{sa + "spi 255", `t.conf:1:37: SPI is "255": want a number from 256 to 4294967295`},
		{sa + "spi 300 lookup address", `t.conf:1:48: found "address": an inbound SA goes by its destination, by its source, too, or by its SPI alone: want one of dst, src, spi`},
		{sa + "spi 300 lookup spi enc null authkey " + k32 + "\n" + "esp from 192.0.2.1 to 192.0.2.3 spi 300 lookup spi enc null authkey " + k32, `t.conf:2:37: an SA of this protocol with SPI 0x12c to 192.0.2.3 is at t.conf:1:37 already: choose another SPI`},
		{sa + "spi 256:0x", `t.conf:1:41: SPI is "0x": want a number from 256 to 4294967295`},
		{sa + "spi 256:257:258", `t.conf:1:37: there are more than two SPIs: one is for each direction`},
		{sa + "enc foo", "t.conf:1:37: unknown algorithm \"foo\": want one of aes, aes-128, aes-192, aes-256, aesctr, aes-128-ctr, aes-192-ctr, aes-256-ctr, " +
			"aes-gcm, aes-128-gcm, aes-192-gcm, aes-256-gcm, aes-gmac, aes-128-gmac, aes-192-gmac, aes-256-gmac, chacha20-poly1305, " +
			"aes-gcm-12, aes-gcm-8, aes-gcm-iiv, aes-ccm, aes-ccm-12, aes-ccm-8, aes-ccm-8-iiv, chacha20-poly1305-iiv, null"},
		{sa + "auth foo", `t.conf:1:38: unknown algorithm "foo": want one of hmac-sha2-256, hmac-sha2-384, hmac-sha2-512, hmac-sha1, aes-xcbc, aes-cmac, aes-gmac`},
		{sa + "enc 3des", `t.conf:1:37: algorithm 3des is refused: its 64-bit blocks leak plaintext after a few gigabytes (RFC 8221): use aes or aes-gcm`},
		{sa + "enc des", `t.conf:1:37: algorithm des is refused: its 56-bit keys can be found by trying (RFC 8221 says MUST NOT): use aes or aes-gcm`},
		{sa + "auth hmac-md5", `t.conf:1:38: algorithm hmac-md5 is refused: its hash is broken (RFC 8221): use hmac-sha2-256`},
		{sa + "spi 300 enc aes-gcm auth hmac-sha2-256", `t.conf:1:58: aes-gcm authenticates by itself: leave "auth hmac-sha2-256" out`},
		{sa + "spi 300 enc aes-gcm authkey " + k32, `t.conf:1:61: aes-gcm has one key, the enckey: leave authkey out`},
		{sa + "spi 300 enc aes-gcm enckey " + k16, `t.conf:1:60: the enckey has 16 bytes: aes-gcm takes 20 or 28 or 36 bytes, the last 4 of which are the salt`},
		{sa + "spi 300 enc null authkey " + k32 + " enckey " + k16, `t.conf:1:130: null takes no key: leave enckey out`},
		{sa + "spi 300 authkey " + k32, `t.conf:1:37: the enckey is missing: aes takes 16 or 24 or 32 bytes in hex`},
		{sa + "spi 300:301 authkey " + k32 + " enckey " + k16, `t.conf:1:41: the enckey of the opposite direction, behind ":", is missing: aes takes 16 or 24 or 32 bytes in hex`},
		{sa + "spi 300 authkey " + k32 + " enckey " + k16 + ":" + k16, `t.conf:1:154: the enckey of the opposite direction, behind ":", is there, but no second SPI: add it behind the first, "spi X:Y"`},
		{sa + "enckey 0x12g4", `t.conf:1:40: the key is not hex: digit 3 is none of 0-9, a-f`},
		{sa + "enckey 123", `t.conf:1:40: the key has 3 hex digits: two make a byte, one is missing`},
		{sa + "enckey 12:", `t.conf:1:43: the key is empty: give its bytes in hex`},
		{sa + "enckey", `t.conf:1:39: found the end of the line: want a key in hex, or file "path"`},
		{sa + "enckey 12 1234", `t.conf:1:43: unknown option: a word that looks like a key (not shown): if it is a part of a key, remove the blank in front of it`},
		{sa + "udpencap", `t.conf:1:33: unknown option "udpencap" of an SA: want one of spi, auth, enc, authkey, enckey, esn, replay, reqid, lookup, lifetime, align4, cpu, for-dscp, df, dscp, ecn, ttl, flowlabel, decapdscp, fragment, mss, tfc-pad, dummy`},
		{sa + "esn spi 300 enc aes-gcm enckey " + k20, `t.conf:1:33: esn needs the replay window, which tells the high half of sequence numbers (RFC 4303, A2): add "replay 64" or more`},
		{sa + "replay 131073", `t.conf:1:40: replay window is "131073": want a number from 0 to 131072`},
		{sa + "lifetime 30", `t.conf:1:42: found "30": want soft or hard`},
		{sa + "lifetime soft 30", `t.conf:1:47: found "30": want one of seconds, useseconds, bytes, packets and a number`},
		{sa + "lifetime soft bytes 1 bytes 2", `t.conf:1:55: "bytes" is given twice: leave one out`},
		{sa + "spi 300 enc aes-gcm enckey " + k20 + " lifetime soft bytes 9 lifetime hard bytes 9", `t.conf:1:123: the soft lifetime of 9 bytes never comes before the hard one of 9: lower it`},
		{sa + "spi 300 enc null authkey " + k32 + "\n" + sa + "spi 300 enc null authkey " + k32, `t.conf:2:37: an SA of this protocol with SPI 0x12c to 192.0.2.2 is at t.conf:1:37 already: choose another SPI`},
		{sa + "spi 300:301 enc aes-gcm enckey " + k20 + ":" + k20, `t.conf:1:105: this is the key at t.conf:1:64, too: aes-gcm would use one IV twice with it, which betrays both packets; give each SA and direction its own key`},
		// Files.
		{"include", `t.conf:1:8: found the end of the line: want the name of a file`},
		{"include \"a\" b", `t.conf:1:13: found "b": want the end of the line`},
	} {
		got, err := read(c.text)
		var all Errors
		if got != nil || !errors.Is(err, ErrConfig) || !errors.As(err, &all) || err.Error() != c.want {
			t.Errorf("%q:\n got %v\nwant %s", c.text, err, c.want)
		}
	}
}

func TestSeveralErrorsAreCollected(t *testing.T) {
	_, err := read("bogus\nflow from any to any type deny\nesp\nflow from any to any type no\n")
	var all Errors
	if !errors.As(err, &all) || len(all) != 3 || all[0].Line != 1 || all[1].Line != 3 || all[2].Line != 4 {
		t.Errorf("got %v", err)
	}
	_, err = read(strings.Repeat("bogus\n", 1000))
	if !errors.As(err, &all) || len(all) != maxErrors+1 || !strings.HasSuffix(err.Error(), "t.conf:21:1: more than 20 errors: mend those first") {
		t.Errorf("got %d errors, %v", len(all), err)
	}
}

// A few lines must not unfold into more than memory holds.
func TestUnfoldingIsBounded(t *testing.T) {
	var bomb strings.Builder
	bomb.WriteString("m0 = \"10.0.0.1 10.0.0.1\"\n")
	for i := range 14 {
		fmt.Fprintf(&bomb, "m%d = \"%s\"\n", i+1, strings.Repeat(fmt.Sprintf("$m%d ", i), 10))
	}
	bomb.WriteString("flow from { $m14 } to any type deny\n")
	if _, err := read(bomb.String()); err == nil || !strings.Contains(err.Error(), "stand for more than 524288 words") {
		t.Errorf("macros: got %v", err)
	}
	many := "{ " + strings.Repeat("10.0.0.1 ", 1000) + "}"
	if _, err := read("flow from " + many + " to " + many + " type deny"); err == nil || err.Error() != "t.conf:1:1: the lists make more than 262144 flows: use prefixes or ranges" {
		t.Errorf("lists: got %v", err)
	}
}

func TestFilesIncludeFiles(t *testing.T) {
	fsys := fstest.MapFS{
		"main.conf":     {Mode: 0o600, Data: []byte("gw = 192.0.2.2\ninclude \"sub/a.conf\"\nflow out from 10.0.0.3 to $host type deny")},
		"sub/a.conf":    {Mode: 0o600, Data: []byte("include b.conf\nflow out from 10.0.0.2 to $gw type deny\n")},
		"sub/b.conf":    {Mode: 0o600, Data: []byte("host = 10.9.9.9\nesp from 192.0.2.1 to $gw spi 300:301 enc null authkey file \"k1:k2\"\n")},
		"sub/k1":        {Mode: 0o600, Data: []byte("0x" + k32 + "\n")},
		"sub/k2":        {Mode: 0o400, Data: []byte(strings.Repeat("00", 32))},
		"loop.conf":     {Data: []byte("include \"loop2.conf\"\n")},
		"loop2.conf":    {Data: []byte("\n include \"loop.conf\"\n")},
		"bad.conf":      {Data: []byte("include \"badsub.conf\"\n")},
		"badsub.conf":   {Data: []byte("\nflow\n")},
		"missing.conf":  {Data: []byte("include \"nothing\"\n")},
		"shared.conf":   {Mode: 0o600, Data: []byte("esp from 192.0.2.1 to 192.0.2.2 spi 300 enc null authkey file \"open\"\n")},
		"open":          {Mode: 0o640, Data: []byte(k32)},
		"garbled.conf":  {Mode: 0o600, Data: []byte("esp from 192.0.2.1 to 192.0.2.2 spi 300 enc null authkey file garbled\n")},
		"garbled":       {Mode: 0o600, Data: []byte(k32[:20] + "-" + k32)},
		"readable.conf": {Mode: 0o644, Data: []byte("esp from 192.0.2.1 to 192.0.2.2 spi 300:301 enc null authkey " + k32 + ":" + k32 + "\n")},
		"dir.conf":      {Data: []byte("include \"sub\"\n")},
	}
	for i := range maxIncludes {
		fsys[fmt.Sprintf("deep%d.conf", i)] = &fstest.MapFile{Data: fmt.Appendf(nil, "include deep%d.conf\n", i+1)}
	}

	got, err := ParseFS(fsys, "main.conf")
	if err != nil {
		t.Fatal(err)
	}
	if describe(got.Policies[0]) != "out sub/a.conf:2 10.0.0.2/32 -> 192.0.2.2/32 discard" ||
		describe(got.Policies[1]) != "out main.conf:3 10.0.0.3/32 -> 10.9.9.9/32 discard" {
		t.Errorf("got %v", got.Policies)
	}
	if len(got.SAs) != 2 || got.SAs[0].AuthKey[0] != 0x3c || got.SAs[1].AuthKey[0] != 0 || len(got.Warnings) != 0 {
		t.Errorf("got %v, warnings %q", got.SAs, got.Warnings)
	}
	accepted(t, got)

	for name, want := range map[string]string{
		"loop.conf":    `loop2.conf:2:10: "loop.conf" includes itself, by way of loop.conf, loop2.conf: remove one include`,
		"bad.conf":     `badsub.conf:2:5: found the end of the line: want one of esp, ah, in, out, proto, from, to`,
		"missing.conf": `missing.conf:1:9: include: open nothing: file does not exist`,
		"shared.conf":  `shared.conf:1:63: key file "open" has mode 0640, so that others can get at the key: chmod 600 it`,
		"garbled.conf": `garbled.conf:1:63: the key in "garbled" is not hex: digit 21 is none of 0-9, a-f`,
		"dir.conf":     `dir.conf:1:9: include: sub is not a regular file`,
		"deep0.conf":   `deep15.conf:1:9: includes are more than 16 deep or more than 1024 in all: join some files`,
		"nowhere":      `read configuration: open nowhere: file does not exist`,
	} {
		if _, err := ParseFS(fsys, name); err == nil || err.Error() != want {
			t.Errorf("%s:\n got %v\nwant %s", name, err, want)
		}
	}
	if _, err := ParseFS(fsys, "missing.conf"); !errors.Is(err, fs.ErrNotExist) || !errors.Is(err, ErrConfig) {
		t.Errorf("the cause of %v is lost", err)
	}
	got, err = ParseFS(fsys, "readable.conf")
	want := []string{"readable.conf:1:62: keys stand in a file of mode 0644, which others can get at: chmod 600 it, or use authkey and enckey file"}
	if err != nil || !slices.Equal(got.Warnings, want) {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestRealFiles(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string, mode fs.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	key := write("key", k32, 0o600)
	write("more.conf", "esp from 192.0.2.1 to 192.0.2.2 spi 300 enc null authkey file \""+key+"\"\n", 0o600)
	got, err := Parse(write("main.conf", "include more.conf\n", 0o600))
	if err != nil || len(got.SAs) != 1 || got.SAs[0].Name != filepath.Join(dir, "more.conf")+":1" {
		t.Errorf("got %v, %v", got, err)
	}
	// What is no file must be told, not waited for.
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{fifo, "/dev/zero", dir} {
		if _, err := Parse(path); err == nil || !strings.Contains(err.Error(), path+" is not a regular file") {
			t.Errorf("%s: got %v", path, err)
		}
	}
	big := write("big", strings.Repeat("#", maxFile+1), 0o600)
	if _, err := Parse(big); err == nil || !strings.Contains(err.Error(), "longer than 33554432 bytes") {
		t.Errorf("got %v", err)
	}
}

// However a line with keys is garbled, its errors show no piece of one.
func TestErrorsNeverShowKeys(t *testing.T) {
	const digits = "8d1f6b0c93a7e254" // of which no four stand elsewhere
	secret := strings.Repeat(digits, 4)
	line := "esp from 192.0.2.1 to 192.0.2.2 spi 0x1000:0x1001 enc aes-256 authkey 0x" + secret + ":" + secret +
		" enckey " + secret + ":0x" + secret + " replay 64"
	pieces := map[string]bool{}
	for i := range len(digits) {
		pieces[(digits + digits)[i:i+8]] = true
	}
	rapid.Check(t, func(rt *rapid.T) {
		text := []byte(line)
		for range rapid.IntRange(1, 3).Draw(rt, "edits") {
			at := rapid.IntRange(0, len(text)-1).Draw(rt, "at")
			switch rapid.IntRange(0, 2).Draw(rt, "edit") {
			case 0:
				text[at] = rapid.SampledFrom([]byte(" zx:,{}=\"\\$#\n-/")).Draw(rt, "byte")
			case 1:
				text = slices.Insert(text, at, rapid.SampledFrom([]byte(" zx:,{}=\"\\$#\n-/")).Draw(rt, "byte"))
			case 2:
				text = slices.Delete(text, at, min(len(text), at+rapid.IntRange(1, 9).Draw(rt, "count")))
			}
		}
		_, err := read(string(text))
		if err == nil {
			return
		}
		for piece := range pieces {
			if strings.Contains(err.Error(), piece) {
				rt.Fatalf("%s\nshows %s: %v", text, piece, err)
			}
		}
	})
}

func FuzzParse(f *testing.F) {
	example, err := os.ReadFile("../../examples/ipsec.conf")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(example))
	for _, s := range []string{
		"", "flow", "a=\"$a\"\n$a", "flow from { 10/8, ::/0 } to any type deny\n", "include \"main\"", "\\\n", "a = \"\"\n$a",
		"esp from 1.1.1.1 to 2.2.2.2 spi 300 enc null authkey file \"k:k\"", "a = {\nb = }\nflow $a", "flow from ::/79 to any type deny",
		"$", "\"", "flow proto tcp from any port - to any port : type deny", "flow out from 0.0.0.0 to 255.255.255.255", "\x00\xff",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		fsys := fstest.MapFS{"main": {Data: []byte(text)}, "k": {Mode: 0o600, Data: []byte(k32)}}
		got, err := ParseFS(fsys, "main")
		if (got == nil) == (err == nil) {
			t.Fatalf("got %v, %v", got, err)
		}
		var all Errors
		if err != nil && !errors.As(err, &all) {
			t.Fatalf("not an Errors: %v", err)
		}
		for _, e := range all {
			if e.File != "main" || e.Line < 1 || e.Line > 1+strings.Count(text, "\n") || e.Col < 1 || e.Message == "" {
				t.Fatalf("no such place: %v", e)
			}
		}
		if got != nil {
			accepted(t, got)
		}
	})
}
