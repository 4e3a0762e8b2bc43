package ipsecconf

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"spigot/internal/flow"
	"spigot/sad"
	"spigot/spd"
)

// read parses text as "t.conf".
func read(text string) (*Config, error) { return ParseReader(strings.NewReader(text), "t.conf") }

// describe writes a policy on one line.
func describe(p *spd.Policy) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s", [...]string{"out", "in"}[p.Dir], p.Name)
	if p.Sel.Proto != flow.AnyProto {
		fmt.Fprintf(&b, " proto %d", p.Sel.Proto)
	}
	side := func(r flow.AddrRange, ports flow.PortRange) {
		fmt.Fprintf(&b, " %v", r)
		switch ports {
		case flow.AnyPort:
		case flow.OpaquePort:
			b.WriteString("[opaque]")
		default:
			fmt.Fprintf(&b, "[%d-%d]", ports.Lo, ports.Hi)
		}
	}
	side(p.Sel.Src, p.Sel.SrcPort)
	b.WriteString(" ->")
	side(p.Sel.Dst, p.Sel.DstPort)
	switch p.Action {
	case spd.Discard:
		b.WriteString(" discard")
	case spd.Bypass:
		b.WriteString(" bypass")
	case spd.Protect:
		b.WriteString(" " + [...]string{"require", "acquire", "use", "dontacq"}[p.Level])
		for i, t := range p.Templates() {
			if i > 0 {
				b.WriteString(" in")
			}
			fmt.Fprintf(&b, " %d %s %v -> %v", t.Proto, [...]string{"tunnel", "transport"}[t.Mode], t.Src, t.Dst)
			if t.Reqid != 0 {
				fmt.Fprintf(&b, " reqid %d", t.Reqid)
			}
		}
	}
	if p.PFP != 0 {
		fmt.Fprintf(&b, " pfp %04b", p.PFP)
	}
	if p.Priority != 0 {
		fmt.Fprintf(&b, " priority %d", p.Priority)
	}
	return b.String()
}

func TestFlows(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       []string
	}{
		{"both directions", "flow esp from 10.1.0.0/16 to 10.2.0.0/16 local 192.0.2.1 peer 192.0.2.2 type require", []string{
			"out t.conf:1 10.1.0.0/16 -> 10.2.0.0/16 require 50 tunnel 192.0.2.1 -> 192.0.2.2",
			"in t.conf:1 10.2.0.0/16 -> 10.1.0.0/16 require 50 tunnel 192.0.2.2 -> 192.0.2.1"}},
		{"one direction", "flow esp out from 10.1.0.0/16 to 10.2.0.0/16 peer 192.0.2.2\nflow ah in from 10.2.0.0/16 to 10.1.0.0/16 peer 192.0.2.2", []string{
			"out t.conf:1 10.1.0.0/16 -> 10.2.0.0/16 require 50 tunnel :: -> 192.0.2.2",
			"in t.conf:2 10.2.0.0/16 -> 10.1.0.0/16 require 51 tunnel 192.0.2.2 -> ::"}},
		{"bundles", "flow esp from 10.3.0.1 to 10.3.0.2 local 10.3.0.1 mode transport reqid 7 bundle ah transport reqid 8\n" +
			"flow out from 10.1.0.0/16 to 10.2.0.0/16 local 192.0.2.1 peer 192.0.2.2 bundle { esp tunnel local 192.0.2.1 peer 192.0.2.9 reqid 3, ah transport peer 192.0.2.9 }", []string{
			"out t.conf:1 10.3.0.1/32 -> 10.3.0.2/32 require 50 transport 10.3.0.1 -> 10.3.0.2 reqid 7 in 51 transport 10.3.0.1 -> 10.3.0.2 reqid 8",
			"in t.conf:1 10.3.0.2/32 -> 10.3.0.1/32 require 50 transport 10.3.0.2 -> 10.3.0.1 reqid 7 in 51 transport 10.3.0.2 -> 10.3.0.1 reqid 8",
			"out t.conf:2 10.1.0.0/16 -> 10.2.0.0/16 require 50 tunnel 192.0.2.1 -> 192.0.2.2 in 50 tunnel 192.0.2.1 -> 192.0.2.9 reqid 3 in 51 transport :: -> 192.0.2.9"}},
		{"esp is the default, to may come first, peer before local", "flow out to 10.2.0.0/16 from 10.1.0.0/16 peer 192.0.2.2 local 192.0.2.1", []string{
			"out t.conf:1 10.1.0.0/16 -> 10.2.0.0/16 require 50 tunnel 192.0.2.1 -> 192.0.2.2"}},
		{"a host is its own peer", "flow from 10.1.0.0/16 to 10.2.0.1", []string{
			"out t.conf:1 10.1.0.0/16 -> 10.2.0.1/32 require 50 tunnel :: -> 10.2.0.1",
			"in t.conf:1 10.2.0.1/32 -> 10.1.0.0/16 require 50 tunnel 10.2.0.1 -> ::"}},
		{"inbound it is the source", "flow in from 10.2.0.1 to 10.1.0.0/16", []string{
			"in t.conf:1 10.2.0.1/32 -> 10.1.0.0/16 require 50 tunnel 10.2.0.1 -> ::"}},
		{"groups", "flow out from 10.1.0.0/16 to 239.1.0.0/16 local 192.0.2.1 peer 239.9.9.9\nflow in from 10.1.0.0/16 to 239.1.0.0/16 local 239.9.9.9 peer any\n" +
			"flow out from fd01::/16 to ff15::1 mode transport\nflow in from fd01::2 to ff15::1 mode transport", []string{
			"out t.conf:1 10.1.0.0/16 -> 239.1.0.0/16 require 50 tunnel 192.0.2.1 -> 239.9.9.9",
			"in t.conf:2 10.1.0.0/16 -> 239.1.0.0/16 require 50 tunnel :: -> 239.9.9.9",
			"out t.conf:3 fd01::/16 -> ff15::1/128 require 50 transport :: -> ff15::1",
			"in t.conf:4 fd01::2/128 -> ff15::1/128 require 50 transport fd01::2 -> ::"}},
		{"each host its own", "flow out from 10.1.0.0/16 to { 10.2.0.1 10.2.0.2 }", []string{
			"out t.conf:1 10.1.0.0/16 -> 10.2.0.1/32 require 50 tunnel :: -> 10.2.0.1",
			"out t.conf:1 10.1.0.0/16 -> 10.2.0.2/32 require 50 tunnel :: -> 10.2.0.2"}},
		{"any peer", "flow out from any to 10.2.0.0/16 peer any", []string{
			"out t.conf:1 0.0.0.0/0 -> 10.2.0.0/16 require 50 tunnel :: -> ::"}},
		{"the types", strings.Join([]string{
			"flow out from 10.1.0.1 to 10.2.0.1 type use",
			"flow out from 10.1.0.1 to 10.2.0.1 type acquire",
			"flow out from 10.1.0.1 to 10.2.0.1 type require",
			"flow out from 10.1.0.1 to 10.2.0.1 type dontacq",
			"flow out from 10.1.0.1 to 10.2.0.1 type bypass",
			"flow out from 10.1.0.1 to 10.2.0.1 type deny"}, "\n"), []string{
			"out t.conf:1 10.1.0.1/32 -> 10.2.0.1/32 use 50 tunnel :: -> 10.2.0.1",
			"out t.conf:2 10.1.0.1/32 -> 10.2.0.1/32 acquire 50 tunnel :: -> 10.2.0.1",
			"out t.conf:3 10.1.0.1/32 -> 10.2.0.1/32 require 50 tunnel :: -> 10.2.0.1",
			"out t.conf:4 10.1.0.1/32 -> 10.2.0.1/32 dontacq 50 tunnel :: -> 10.2.0.1",
			"out t.conf:5 10.1.0.1/32 -> 10.2.0.1/32 bypass",
			"out t.conf:6 10.1.0.1/32 -> 10.2.0.1/32 discard"}},
		{"protocols and ports", "flow proto tcp from 10.1.0.0/16 port 1024:65535 to 10.2.0.0/16 port { https, 8000-8080 } type bypass", []string{
			"out t.conf:1 proto 6 10.1.0.0/16[1024-65535] -> 10.2.0.0/16[443-443] bypass",
			"in t.conf:1 proto 6 10.2.0.0/16[443-443] -> 10.1.0.0/16[1024-65535] bypass",
			"out t.conf:1 proto 6 10.1.0.0/16[1024-65535] -> 10.2.0.0/16[8000-8080] bypass",
			"in t.conf:1 proto 6 10.2.0.0/16[8000-8080] -> 10.1.0.0/16[1024-65535] bypass"}},
		{"lists of protocols, spaced ranges", "flow in proto { icmp, 132 } from 10.1.0.0 - 10.1.0.9 to 10.2.0.3-10.2.0.5 type deny\nflow in proto udp from any to 10.0.0.1 port 10 - 12 type deny\nflow in proto udp from any to 10.0.0.1 port 10 : 12 type deny", []string{
			"in t.conf:1 proto 1 10.1.0.0-10.1.0.9 -> 10.2.0.3-10.2.0.5 discard",
			"in t.conf:1 proto 132 10.1.0.0-10.1.0.9 -> 10.2.0.3-10.2.0.5 discard",
			"in t.conf:2 proto 17 0.0.0.0/0 -> 10.0.0.1/32[10-12] discard",
			"in t.conf:3 proto 17 0.0.0.0/0 -> 10.0.0.1/32[10-12] discard"}},
		{"ICMP types and codes", "flow out proto icmp from any to 10.0.0.1 icmp-type 8 type bypass\n" +
			"flow proto ipv6-icmp from fd01::/16 to fd02::1 icmp-type 1 code 4 type bypass\nflow in proto icmp from 10.0.0.1 to any type deny icmp-type 0 code 0", []string{
			"out t.conf:1 proto 1 0.0.0.0/0[2048-2303] -> 10.0.0.1/32 bypass",
			"out t.conf:2 proto 58 fd01::/16[260-260] -> fd02::1/128 bypass",
			"in t.conf:2 proto 58 fd02::1/128[260-260] -> fd01::/16 bypass",
			"in t.conf:3 proto 1 10.0.0.1/32[0-0] -> 0.0.0.0/0 discard"}},
		{"OPAQUE", "flow proto udp from 10.0.0.0/8 port opaque to 10.0.0.1 port opaque type bypass\nflow proto { tcp udp } from 10.0.0.2 to 10.0.0.1 port { 80 opaque } type deny\n" +
			"flow proto icmp from 10.0.0.0/8 to 10.0.0.1 icmp-type opaque type bypass", []string{
			"out t.conf:1 proto 17 10.0.0.0/8[opaque] -> 10.0.0.1/32[opaque] bypass",
			"in t.conf:1 proto 17 10.0.0.1/32[opaque] -> 10.0.0.0/8[opaque] bypass",
			"out t.conf:2 proto 6 10.0.0.2/32 -> 10.0.0.1/32[80-80] discard",
			"in t.conf:2 proto 6 10.0.0.1/32[80-80] -> 10.0.0.2/32 discard",
			"out t.conf:2 proto 6 10.0.0.2/32 -> 10.0.0.1/32[opaque] discard",
			"in t.conf:2 proto 6 10.0.0.1/32[opaque] -> 10.0.0.2/32 discard",
			"out t.conf:2 proto 17 10.0.0.2/32 -> 10.0.0.1/32[80-80] discard",
			"in t.conf:2 proto 17 10.0.0.1/32[80-80] -> 10.0.0.2/32 discard",
			"out t.conf:2 proto 17 10.0.0.2/32 -> 10.0.0.1/32[opaque] discard",
			"in t.conf:2 proto 17 10.0.0.1/32[opaque] -> 10.0.0.2/32 discard",
			"out t.conf:3 proto 1 10.0.0.0/8[opaque] -> 10.0.0.1/32 bypass",
			"in t.conf:3 proto 1 10.0.0.1/32[opaque] -> 10.0.0.0/8 bypass"}},
		{"any is both families", "flow out from any to any type bypass", []string{
			"out t.conf:1 0.0.0.0/0 -> 0.0.0.0/0 bypass",
			"out t.conf:1 ::/0 -> ::/0 bypass"}},
		{"families that differ are left out", "flow out from { 10.0.0.0/8 2001:db8::/32 } to { 10.1.0.0/16, 2001:db8:1::/48 } type bypass", []string{
			"out t.conf:1 10.0.0.0/8 -> 10.1.0.0/16 bypass",
			"out t.conf:1 2001:db8::/32 -> 2001:db8:1::/48 bypass"}},
		{"IPv6 in IPv4", "flow out from 2001:db8::/32 to 2001:db8:1::/48 local 192.0.2.1 peer 192.0.2.2", []string{
			"out t.conf:1 2001:db8::/32 -> 2001:db8:1::/48 require 50 tunnel 192.0.2.1 -> 192.0.2.2"}},
		{"short prefixes, bits behind them", "flow out from 10/8 to 10.1.2.3/16 type deny", []string{
			"out t.conf:1 10.0.0.0/8 -> 10.1.0.0/16 discard"}},
		{"populate from packet", strings.Join([]string{
			"flow from 10.0.0.1 to 10.0.0.2 pfp src",
			"flow out from 10.0.0.1 to 10.0.0.2 pfp { src, dst }",
			"flow out proto tcp from 10.0.0.1 to 10.0.0.2 pfp ports",
			"flow out from 10.0.0.1 to 10.0.0.2 pfp { proto ports } priority 7",
			"flow out from 10.0.0.1 to 10.0.0.2 pfp all"}, "\n"), []string{
			"out t.conf:1 10.0.0.1/32 -> 10.0.0.2/32 require 50 tunnel :: -> 10.0.0.2 pfp 0001",
			"in t.conf:1 10.0.0.2/32 -> 10.0.0.1/32 require 50 tunnel 10.0.0.2 -> ::",
			"out t.conf:2 10.0.0.1/32 -> 10.0.0.2/32 require 50 tunnel :: -> 10.0.0.2 pfp 0011",
			"out t.conf:3 proto 6 10.0.0.1/32 -> 10.0.0.2/32 require 50 tunnel :: -> 10.0.0.2 pfp 1000",
			"out t.conf:4 10.0.0.1/32 -> 10.0.0.2/32 require 50 tunnel :: -> 10.0.0.2 pfp 1100 priority 7",
			"out t.conf:5 10.0.0.1/32 -> 10.0.0.2/32 require 50 tunnel :: -> 10.0.0.2 pfp 1111"}},
		{"extensions", "flow esp out from 10.0.0.1 to 10.0.0.2 reqid 0x10 priority 7 mode transport type acquire", []string{
			"out t.conf:1 10.0.0.1/32 -> 10.0.0.2/32 acquire 50 transport :: -> 10.0.0.2 reqid 16 priority 7"}},
		{"comments, continuations, lists over lines", "# a\n\n flow out \\\n\tfrom {\n 10.0.0.1, # one\n 10.0.0.2\n} to 10.0.0.3 \\\r\n type deny\r\n", []string{
			"out t.conf:3 10.0.0.1/32 -> 10.0.0.3/32 discard",
			"out t.conf:3 10.0.0.2/32 -> 10.0.0.3/32 discard"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := read(c.text)
			if err != nil {
				t.Fatal(err)
			}
			var lines []string
			for _, p := range got.Policies {
				lines = append(lines, describe(p))
				if p.ID != 0 || !p.Static {
					t.Errorf("ID %d, static %v; want 0, true", p.ID, p.Static)
				}
			}
			if !slices.Equal(lines, c.want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(lines, "\n"), strings.Join(c.want, "\n"))
			}
		})
	}
}

func TestMacros(t *testing.T) {
	for _, c := range []struct{ name, text string }{
		{"plain", "a = \"10.0.0.1\"\nb = 10.0.0.2\nflow out from $a to $b type deny"},
		{"in quotes of the other kind", "a = '10.0.0.1'\nflow out from $a to 10.0.0.2 type deny"},
		{"a list", "l = \"{ 10.0.0.1 }\"\nflow out from $l to 10.0.0.2 type deny"},
		{"a list without quotes", "l = { 10.0.0.1, }\nflow out from $l to 10.0.0.2 type deny"},
		{"in a list", "a = 10.0.0.1\nflow out from { $a } to 10.0.0.2 type deny"},
		{"a list's inside", "a = \"10.0.0.1,\"\nflow out from { $a } to 10.0.0.2 type deny"},
		{"followed by a mask", "a = 10.0.0.1\nflow out from $a/32 to 10.0.0.2 type deny"},
		{"of macros", "x = 10.0.0.1\ny = \"$x\"\nz = $y\nflow out from $z to 10.0.0.2 type deny"},
		{"several words", "t = type deny\nflow out from 10.0.0.1 to 10.0.0.2 $t"},
		{"defined again", "a = 10.0.0.9\na = 10.0.0.1\nflow out from $a to 10.0.0.2 type deny"},
		{"a quoted quote", "a = \"\\\"10.0.0.1\\\"\"\nflow out from $a to 10.0.0.2 type deny"},
	} {
		got, err := read(c.text)
		if err != nil || len(got.Policies) != 1 || !strings.HasSuffix(describe(got.Policies[0]), " 10.0.0.1/32 -> 10.0.0.2/32 discard") {
			t.Errorf("%s: got %v, %v", c.name, got, err)
		}
	}
}

// Keys as the tests write them.
var (
	k16 = strings.Repeat("1a", 16)
	k20 = strings.Repeat("2b", 20)
	k32 = strings.Repeat("3c", 32)
	k36 = strings.Repeat("4d", 36)
	k48 = strings.Repeat("5e", 48)
	k64 = strings.Repeat("6f", 64)
)

func TestSAs(t *testing.T) {
	const from = "from 192.0.2.1 to 192.0.2.2 "
	for _, c := range []struct {
		name, text string
		want       []string
	}{
		{"defaults", "esp " + from + "spi 0x1000 authkey 0x" + k32 + " enckey " + k16, []string{
			`SPI 0x1000 proto 50 tunnel 192.0.2.1 -> 192.0.2.2 aes-cbc/hmac-sha2-256-128 (keys of 16 and 32 bytes) window 0 reqid 0 "t.conf:1"`}},
		{"both directions", "esp tunnel " + from + "spi 4096:4097 auth hmac-sha2-384 enc aes-256 authkey " + k48 + ":0x" + strings.ToUpper(k48) + " enckey " + k32 + ":" + k32, []string{
			`SPI 0x1000 proto 50 tunnel 192.0.2.1 -> 192.0.2.2 aes-cbc/hmac-sha2-384-192 (keys of 32 and 48 bytes) window 0 reqid 0 "t.conf:1"`,
			`SPI 0x1001 proto 50 tunnel 192.0.2.2 -> 192.0.2.1 aes-cbc/hmac-sha2-384-192 (keys of 32 and 48 bytes) window 0 reqid 0 "t.conf:1"`}},
		{"for one worker", "esp transport from 2001:db8::1 to 2001:db8::2 spi 256 enc aes-128-gcm enckey " + k20 + " cpu 0", []string{
			`SPI 0x100 proto 50 transport 2001:db8::1 -> 2001:db8::2 aes-gcm-16 (keys of 20 and 0 bytes) window 0 cpu 0 reqid 0 "t.conf:1"`}},
		{"for one codepoint", "esp " + from + "spi 256 enc aes-128-gcm enckey " + k20 + " for-dscp 0", []string{
			`SPI 0x100 proto 50 tunnel 192.0.2.1 -> 192.0.2.2 aes-gcm-16 (keys of 20 and 0 bytes) window 0 for dscp 0 reqid 0 "t.conf:1"`}},
		{"for some codepoints", "ah transport " + from + "spi 256:257 authkey " + k32 + ":" + k32 + " for-dscp { 46, 0 63 }", []string{
			`SPI 0x100 proto 51 transport 192.0.2.1 -> 192.0.2.2 /hmac-sha2-256-128 (keys of 0 and 32 bytes) window 0 for dscp { 0, 46, 63 } reqid 0 "t.conf:1"`,
			`SPI 0x101 proto 51 transport 192.0.2.2 -> 192.0.2.1 /hmac-sha2-256-128 (keys of 0 and 32 bytes) window 0 for dscp { 0, 46, 63 } reqid 0 "t.conf:1"`}},
		{"transport, AEAD, extensions", "esp transport from 2001:db8::1 to 2001:db8::2 spi 256 enc aes-128-gcm enckey " + k20 + " esn replay 1024 reqid 9", []string{
			`SPI 0x100 proto 50 transport 2001:db8::1 -> 2001:db8::2 aes-gcm-16 (keys of 20 and 0 bytes) window 1024 esn reqid 9 "t.conf:1"`}},
		{"an inbound SA by its source, too", "esp from 192.0.2.1 to 192.0.2.2 spi 300 lookup src enc aes-128-gcm enckey " + k20 + "\n" +
			"esp from 192.0.2.1 to 192.0.2.2 spi 300 lookup dst enc aes-256-gcm enckey " + k36 + "\n", []string{
			`SPI 0x12c proto 50 tunnel 192.0.2.1 -> 192.0.2.2 aes-gcm-16 (keys of 20 and 0 bytes) window 0 by src reqid 0 "t.conf:1"`,
			`SPI 0x12c proto 50 tunnel 192.0.2.1 -> 192.0.2.2 aes-gcm-16 (keys of 36 and 0 bytes) window 0 reqid 0 "t.conf:2"`}},
		{"to groups", "esp from 192.0.2.1 to 239.9.9.9 spi 300 lookup src enc null authkey " + k32 + "\nesp from any to 239.9.9.9 spi 300 enc null authkey " + k32 +
			"\nah from any to ff15::1 spi 300 authkey " + k32, []string{
			`SPI 0x12c proto 50 tunnel 192.0.2.1 -> 239.9.9.9 null/hmac-sha2-256-128 (keys of 0 and 32 bytes) window 0 by src reqid 0 "t.conf:1"`,
			`SPI 0x12c proto 50 tunnel :: -> 239.9.9.9 null/hmac-sha2-256-128 (keys of 0 and 32 bytes) window 0 reqid 0 "t.conf:2"`,
			`SPI 0x12c proto 51 tunnel :: -> ff15::1 /hmac-sha2-256-128 (keys of 0 and 32 bytes) window 0 reqid 0 "t.conf:3"`}},
		{"by key length", "esp " + from + "spi 300 enc aes-gcm enckey " + k36, []string{
			`SPI 0x12c proto 50 tunnel 192.0.2.1 -> 192.0.2.2 aes-gcm-16 (keys of 36 and 0 bytes) window 0 reqid 0 "t.conf:1"`}},
		{"the order of options is free", "esp " + from + "enckey " + k36 + " enc chacha20-poly1305 spi 300", []string{
			`SPI 0x12c proto 50 tunnel 192.0.2.1 -> 192.0.2.2 chacha20-poly1305 (keys of 36 and 0 bytes) window 0 reqid 0 "t.conf:1"`}},
		{"null", "esp " + from + "spi 300 enc null auth hmac-sha2-512 authkey " + k64, []string{
			`SPI 0x12c proto 50 tunnel 192.0.2.1 -> 192.0.2.2 null/hmac-sha2-512-256 (keys of 0 and 64 bytes) window 0 reqid 0 "t.conf:1"`}},
		{"one SPI for each destination", "esp to 192.0.2.2 from 192.0.2.1 spi 300 enc null authkey " + k32 + "\nesp from 192.0.2.1 to 192.0.2.3 spi 300 enc null authkey " + k32, []string{
			`SPI 0x12c proto 50 tunnel 192.0.2.1 -> 192.0.2.2 null/hmac-sha2-256-128 (keys of 0 and 32 bytes) window 0 reqid 0 "t.conf:1"`,
			`SPI 0x12c proto 50 tunnel 192.0.2.1 -> 192.0.2.3 null/hmac-sha2-256-128 (keys of 0 and 32 bytes) window 0 reqid 0 "t.conf:2"`}},
	} {
		got, err := read(c.text)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		var lines []string
		for _, sa := range got.SAs {
			lines = append(lines, sa.String())
		}
		if !slices.Equal(lines, c.want) {
			t.Errorf("%s: got\n%s\nwant\n%s", c.name, strings.Join(lines, "\n"), strings.Join(c.want, "\n"))
		}
	}
}

func TestKeysAndLifetimes(t *testing.T) {
	got, err := read("esp from 192.0.2.1 to 192.0.2.2 spi 0x1000:0x1001 enc aes-128 authkey " + k32 + ":" + k32 + " enckey 0x" + k16 + ":0X000102030405060708090a0B0c0D0e0f " +
		"lifetime soft seconds 10 bytes 20 lifetime hard useseconds 30 packets 40 seconds 11")
	if err != nil {
		t.Fatal(err)
	}
	forth, back := got.SAs[0], got.SAs[1]
	if forth.EncKey[0] != 0x1a || back.EncKey[11] != 11 || forth.AuthKey[31] != 0x3c || &forth.AuthKey[0] == &back.AuthKey[0] {
		t.Error("keys are not those of the text, in order, each SA its own")
	}
	soft, hard := sad.Lifetime{Seconds: 10, Bytes: 20}, sad.Lifetime{UseSeconds: 30, Packets: 40, Seconds: 11}
	if forth.Soft != soft || forth.Hard != hard || back.Soft != soft || back.Hard != hard {
		t.Errorf("lifetimes %v, %v", forth, back)
	}
}

// Every algorithm that the grammar has must be one that crypto has.
func TestAlgorithmsAreThere(t *testing.T) {
	for _, enc := range encryptions {
		for _, auth := range integrities {
			if enc.refuse != "" || auth.refuse != "" || auth.salt > 0 {
				continue
			}
			for _, n := range enc.keys {
				text := fmt.Sprintf("esp from 192.0.2.1 to 192.0.2.2 spi 300 enc %s", enc.name)
				if n > 0 {
					text += " enckey " + strings.Repeat("ab", n)
				}
				if !enc.aead {
					text += " auth " + auth.name + " authkey " + strings.Repeat("cd", auth.keys[0])
				}
				got, err := read(text)
				if err != nil {
					t.Errorf("%s: %v", text, err)
					continue
				}
				if _, err := sad.NewInbound(got.SAs[0]); err != nil {
					t.Errorf("%s: %v", text, err)
				}
				counter := enc.aead || strings.Contains(enc.name, "ctr")
				if (got.SAs[0].CounterKey() != nil) != counter {
					t.Errorf("%s: it must not meet an IV twice: %v", enc.name, !counter)
				}
			}
		}
	}
}

// So must those of AH, whose header is of a multiple of 8 bytes unless the SA
// says otherwise.
func TestAH(t *testing.T) {
	for _, auth := range integrities {
		for _, n := range auth.keys {
			text := fmt.Sprintf("ah transport from 192.0.2.1 to 192.0.2.2 spi 300:301 auth %s authkey %s:%s esn replay 64 reqid 9",
				auth.name, strings.Repeat("ab", n), strings.Repeat("cd", n))
			for _, align4 := range []bool{false, true} {
				if align4 {
					text += " align4"
				}
				got, err := read(text)
				if err != nil {
					t.Errorf("%s: %v", text, err)
					continue
				}
				accepted(t, got)
				for _, p := range got.SAs {
					if p.Proto != 51 || p.Tunnel || p.Align4 != align4 || p.Encryption != "" || p.Integrity != auth.to || len(p.AuthKey) != n ||
						!p.ESN || p.Window != 64 || p.Reqid != 9 || (p.CounterKey() != nil) != (auth.salt > 0) {
						t.Errorf("%s: %v", text, p)
					}
				}
			}
		}
	}
	got, err := read("ah from 192.0.2.1 to 192.0.2.2 spi 300 authkey " + strings.Repeat("ab", 32))
	if err != nil || got.SAs[0].Integrity != "hmac-sha2-256-128" || !got.SAs[0].Tunnel {
		t.Errorf("the defaults: %v", err)
	}
}

func TestExample(t *testing.T) {
	got, err := Parse("../../examples/ipsec.conf")
	if err != nil {
		t.Fatal(err)
	}
	if len(got.SAs) != 10 || len(got.Policies) != 2+2+4+4+4+2+2+2+2+2+2+2 {
		t.Errorf("%d SAs, %d policies", len(got.SAs), len(got.Policies))
	}
	accepted(t, got)
}

// accepted checks that spd and sad take what the parser gives.
func accepted(t *testing.T, c *Config) {
	t.Helper()
	var tables [2][]*spd.Policy
	for i, p := range c.Policies {
		p.ID = uint32(i + 1)
		tables[p.Dir] = append(tables[p.Dir], p)
	}
	for _, policies := range tables {
		if _, err := spd.Compile(nil, policies); err != nil {
			t.Error(err)
		}
	}
	for _, sa := range c.SAs {
		if _, err := sad.NewInbound(sa); err != nil {
			t.Error(err)
		}
		if _, err := sad.NewOutbound(sa); err != nil {
			t.Error(err)
		}
	}
}
