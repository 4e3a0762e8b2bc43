package afxdp

import "github.com/cilium/ebpf"

// Verdict is what a steering program decided on a packet. The order is that of
// enum verdict in steer.c.
type Verdict uint8

// The verdicts. "This host" is the addresses given to Steering.SetLocal.
const (
	PassShort         Verdict = iota // too short for an Ethernet header
	PassEtherType                    // neither IP nor ARP nor tagged
	PassVLAN                         // has the tag of a VLAN; that of VLAN 0 is looked behind
	PassARP                          // RFC 826
	PassGroup                        // multicast or broadcast, by MAC or by IP address, but for RedirectGroup
	PassND                           // neighbour discovery or MLD for this host or link (RFC 4861, 3810)
	PassFragment                     // fragment for this host, of neither IPsec nor IKE
	PassIKE                          // UDP 500, or 4500 with the non-ESP marker, for this host (RFC 3948, 2.2)
	PassLocal                        // anything else for this host
	PassJudged                       // guarded: what Steering.Deliver gave to this host
	PassOther                        // generator: not the test traffic
	RedirectShort                    // says IP and ends before its headers do, or they are malformed, or tags are
	RedirectESP                      // protocol 50 for this host
	RedirectAH                       // protocol 51 for this host
	RedirectUDPESP                   // ESP in UDP 4500 for this host (RFC 3948, 2.1)
	RedirectKeepalive                // NAT-keepalive for this host (RFC 3948, 2.3)
	RedirectPMTU                     // ICMP to this host: ESP or AH that it has sent is too big for the path
	RedirectHost                     // guarded: for this host, in clear
	RedirectGroup                    // for a group: IPsec under an SA, or what a policy protects
	RedirectTransit                  // for another host
	RedirectTest                     // generator: the test traffic
	NoSocket                         // to be redirected, but the queue has no socket
	NumVerdicts
)

var verdictNames = [NumVerdicts]string{
	"pass_short", "pass_ethertype", "pass_vlan", "pass_arp", "pass_group", "pass_nd", "pass_fragment",
	"pass_ike", "pass_local", "pass_judged", "pass_other", "redirect_short", "redirect_esp",
	"redirect_ah", "redirect_udp_esp", "redirect_keepalive", "redirect_pmtu", "redirect_host", "redirect_group",
	"redirect_transit", "redirect_test", "no_socket",
}

// String returns v's name as reports show it.
func (v Verdict) String() string {
	if v >= NumVerdicts {
		return "unknown"
	}
	return verdictNames[v]
}

// Verdicts counts packets by verdict.
type Verdicts [NumVerdicts]uint64

// readVerdicts sums the counters of all cores.
func readVerdicts(counts *ebpf.Map) (Verdicts, error) {
	var vs Verdicts
	var cores []uint64
	for v := range vs {
		if err := counts.Lookup(uint32(v), &cores); err != nil {
			return Verdicts{}, err
		}
		for _, n := range cores {
			vs[v] += n
		}
	}
	return vs, nil
}
