// Package counter counts what workers do: one table of drop reasons, from
// which the enum's names, the reports and the documentation come, and one
// block of counters a worker.
package counter

// Reason says why a packet was dropped. The zero Reason means that it was not.
type Reason uint8

// The drop reasons, in the order in which a packet meets them.
const (
	None Reason = iota
	Runt
	Giant
	BadEtherType
	BadIPHeader
	BadExtension
	BadMAC
	Fragment
	BadFragment
	FragmentTimeout
	FragmentEvicted
	TTLExpired
	NoPolicy
	PolicyDiscard
	NoSA
	SeqExhausted
	NATKeepalive
	BadESP
	BadAH
	UnknownSPI
	ReservedSPI
	WrongSAMode
	ReplayOld
	ReplaySeen
	AuthFailed
	BadPadding
	BadInner
	DummyPacket
	BadECN
	NestedSAs
	SelectorMismatch
	BadQuote
	InPolicyClear
	InPolicyMismatch
	Martian
	GroupScope
	GroupLoop
	NoRoute
	HostLocal
	HostFull
	NoNeighbour
	TooBig
	PathReport
	NoRoom
	TxFull
	PoolEmpty
	NumReasons
)

var reasons = [NumReasons]struct{ name, text string }{
	None:             {"none", "not dropped"},
	Runt:             {"runt", "shorter than its headers"},
	Giant:            {"giant", "a datagram put together of fragments is longer than a frame, and no buffer for it was free"},
	BadEtherType:     {"bad_ethertype", "neither IPv4 nor IPv6; VLAN tags are not handled"},
	BadIPHeader:      {"bad_ip_header", "IP version, header length, total length or checksum is wrong"},
	BadExtension:     {"bad_extension", "IPv6 extension headers are malformed, too many, or hold a routing header"},
	BadMAC:           {"bad_mac", "not addressed to this port"},
	Fragment:         {"fragment", "a later fragment without its first, or too close to it, where ports matter; or one in transport mode (RFC 4301, 7)"},
	BadFragment:      {"bad_fragment", "a fragment of IPsec that is tiny, overlaps, comes twice or is beyond 64 KB (RFC 5722)"},
	FragmentTimeout:  {"fragment_timeout", "a fragment of IPsec the rest of whose datagram did not come within 15 seconds"},
	FragmentEvicted:  {"fragment_evicted", "a fragment of IPsec that had to make room for newer ones"},
	TTLExpired:       {"ttl_expired", "TTL or hop limit ran out; answered with ICMP time exceeded"},
	NoPolicy:         {"no_policy", "no SPD entry matches: the implicit discard (RFC 4301, 4.4.1)"},
	PolicyDiscard:    {"policy_discard", "an SPD entry says discard"},
	NoSA:             {"no_sa", "an SPD entry says protect and there is no SA yet: acquire requested"},
	SeqExhausted:     {"seq_exhausted", "the SA has used up its sequence numbers (RFC 4303, 3.3.3)"},
	NATKeepalive:     {"nat_keepalive", "a peer keeps its NAT's mapping alive: there is nothing else to do (RFC 3948, 2.3)"},
	BadESP:           {"bad_esp", "an ESP packet too short for its SA, or not a multiple of its block"},
	BadAH:            {"bad_ah", "an AH packet cut off, or with a header of another length than its SA's (RFC 4302, 2.2)"},
	UnknownSPI:       {"unknown_spi", "no inbound SA for (SPI, destination, protocol)"},
	ReservedSPI:      {"reserved_spi", "SPI 0 to 255 (RFC 4303, 2.1)"},
	WrongSAMode:      {"wrong_sa_mode", "the SA's mode, its UDP encapsulation, or in transport mode its ends do not fit the packet"},
	ReplayOld:        {"replay_old", "sequence number left of the replay window"},
	ReplaySeen:       {"replay_seen", "sequence number received before"},
	AuthFailed:       {"auth_failed", "ICV is wrong"},
	BadPadding:       {"bad_padding", "padding is not 1, 2, 3 .. or is longer than the payload"},
	BadInner:         {"bad_inner", "the decrypted packet is no valid IP packet of the announced protocol"},
	DummyPacket:      {"dummy_packet", "next header 59: traffic-flow confidentiality (RFC 4303, 2.6)"},
	BadECN:           {"bad_ecn", "congestion mark on a tunnel header around a Not-ECT packet (RFC 6040, 4.2)"},
	NestedSAs:        {"nested_sas", "came by more SAs, one in another, than a policy can name"},
	SelectorMismatch: {"selector_mismatch", "the decrypted packet lies outside its SA's selectors (RFC 4301, 5.2)"},
	BadQuote:         {"bad_quote", "an ICMP error in a tunnel that quotes no packet of whom it goes to (RFC 4301, 6.2)"},
	InPolicyClear:    {"in_policy_clear", "came in clear where an SPD entry says protect"},
	InPolicyMismatch: {"in_policy_mismatch", "came by an SA that its SPD entry does not name"},
	Martian:          {"martian", "its source is one that no router forwards from: loopback, of one link, a group (RFC 1812, 5.3.7)"},
	GroupScope:       {"group_scope", "to a group of one link or one host, which no router forwards (RFC 5771, 4; RFC 4291, 2.7)"},
	GroupLoop:        {"group_loop", "to a group, and back to where it came from: by its route, or by the way to its source"},
	NoRoute:          {"no_route", "no route, or a route out of no port of the gateway"},
	HostLocal:        {"host_local", "for the gateway itself, where the host is no part of it, or sent to it from the protected side"},
	HostFull:         {"host_full", "the host does not take its packets as fast as they come"},
	NoNeighbour:      {"no_neighbour", "the next hop's link-layer address is not known; resolution requested"},
	TooBig:           {"too_big", "does not fit the path MTU; answered with ICMP"},
	PathReport:       {"path_report", "an ICMP error about a tunnel's path MTU for which the slow path has no time"},
	NoRoom:           {"no_room", "does not fit the frame with the headers that it needs"},
	TxFull:           {"tx_full", "the egress queue is full"},
	PoolEmpty:        {"pool_empty", "no free frame for a packet of the slow path"},
}

// String returns r's name as reports and metrics show it.
func (r Reason) String() string {
	if r >= NumReasons {
		return "unknown"
	}
	return reasons[r].name
}

// Text explains r in one sentence without a full stop.
func (r Reason) Text() string {
	if r >= NumReasons {
		return "unknown"
	}
	return reasons[r].text
}
