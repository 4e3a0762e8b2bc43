// Package ipsecconf reads OpenBSD's ipsec.conf: the flows that become policies
// of the SPD, and manually keyed SAs. It changes nothing; what it returns is for
// the controller to load.
//
// The grammar is that of ipsec.conf(5):
//
//	name = "value"                     a macro, used as $name
//	include "file"                     relative to the file it stands in
//
//	flow [esp|ah] [in|out] [proto P] from S [port N] to D [port N]
//	     [local L] [peer R|any] [type use|acquire|require|dontacq|bypass|deny]
//
//	esp [tunnel|transport] from S to D spi X[:Y] [auth A] [enc E]
//	     [authkey K[:K]|file "path[:path]"] [enckey K[:K]|file "path[:path]"]
//	ah [tunnel|transport] from S to D spi X[:Y] [auth A]
//	     [authkey K[:K]|file "path[:path]"]
//
// A statement ends with its line; a backslash carries it on to the next, and so
// does an open brace. "#" starts a comment. Where one address, port or protocol
// may stand, so may a list: { a b c }, with or without commas. "to D from S" may
// be written for "from S to D". A second SPI and second keys make the SA of the
// opposite direction.
//
// Spigot adds to it:
//
//   - addresses as ranges, "10.0.0.1 - 10.0.0.9", and ports as ranges,
//     "1000:1999" or "1000 - 1999";
//   - the algorithms aes-gcm-12, aes-gcm-8, aes-ccm, aes-ccm-12 and aes-ccm-8, the
//     number being that of the ICV's bytes; aes-gcm-iiv, aes-ccm-8-iiv and
//     chacha20-poly1305-iiv, whose IVs are not sent (RFC 8750); aes-gmac; and for
//     integrity aes-xcbc and aes-cmac, and of AH aes-gmac, whose key ends with a
//     salt of 4 bytes;
//   - "bundle { esp|ah [tunnel|transport] [local L] [peer R] [reqid N] .. }" on
//     flows: SAs that go around the flow's own, the inner first, up to three; their
//     ends are the flow's unless they say otherwise;
//   - "align4" on SAs of AH over IPv4: their header is a multiple of 4 bytes, as RFC
//     4302 has it, and not of 8 as Linux sends it. Received are both;
//   - "cpu N" on SAs: outbound, the SA serves worker N alone, counted from 0, and
//     workers without one of their own use the newest SA without "cpu" (RFC 9611);
//   - "for-dscp N|{ N N .. }" on SAs: outbound, the SA is for packets with these
//     codepoints in their own header, and comes before the newest SA without the
//     word, so that a network which lets some classes overtake others does not carry
//     them out of the replay window (RFC 4301, section 4.4.2.1). What "dscp" writes
//     into the outer header is another matter;
//   - "esn", "replay N" (packets) and "lifetime soft|hard seconds N useseconds N
//     bytes N packets N" on SAs;
//   - on SAs in tunnel mode, what becomes of the outer header: "df copy|set|clear",
//     "dscp copy|N|{ inner:outer, .. }", "ecn on|off", "ttl N", "flowlabel
//     zero|copy|hash", and, inbound, "decapdscp keep|copy"; what becomes of packets
//     that are too big for the path: "fragment after|before" encapsulation; the
//     first of each is the default. "mss N|path" lowers the segment size of TCP; and
//     "tfc-pad N|mtu" pads what is shorter to N bytes, or to what fits the path, so
//     that nobody learns its length (RFC 4303, section 2.7). "dummy N" sends that
//     many dummy packets a second while the SA carries nothing (section 2.6);
//   - "lookup dst|src|spi" on SAs: what names an inbound one beside its SPI, its
//     destination (the default), its source, too, or nothing (RFC 4301, section 4.1);
//   - "reqid N" on SAs and flows, which ties them together;
//   - "priority N" on flows: lower is tried first; and "mode tunnel|transport",
//     the mode of the SA that the flow wants;
//   - "port opaque" and "icmp-type opaque": flows of the packets that do not show
//     ports, or type and code, above all fragments behind the first one (RFC 4301,
//     section 7.2). A flow without "port" takes both;
//   - multicast groups: "esp from S to G" and, for an SA that many senders share,
//     "esp from any to G", where the replay window, one for all of them, is best
//     left out; "flow out .. peer G" and "flow in .. local G peer any";
//   - "icmp-type T" and "icmp-type T code C" on flows of ICMP, in numbers. The flow
//     that mirrors it has the same type: an echo's reply is a flow of its own;
//   - "pfp F" on flows, F being src, dst, proto, ports, all or a list of them: what
//     a flow takes from packets (populate from packet, RFC 4301). For each value
//     key daemons are asked for an SA of its own.
//
// It differs in three ways. Flows are tried in the order of the file, as RFC 4301
// has it, and not the most specific one first. A flow in is "require" unless it
// says otherwise, also the one that mirrors a flow without a direction: OpenBSD
// lets clear packets in by default. Names of hosts and interfaces are not
// resolved.
package ipsecconf
