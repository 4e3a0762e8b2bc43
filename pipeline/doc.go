// Package pipeline is the fast path: a worker polls its queues and carries
// bursts of packets through the IPsec processing of RFC 4301, section 5, to
// completion.
//
//	protected port                                              wire port
//	     |                                                          |
//	  1. rx ------------------------- outbound ------------------> tx
//	     |   2. classify  headers valid, flow tuple                 ^
//	     |   3. policy    flow cache, else SPD: verdict and SA      |
//	     |   4. route     next hop; does it fit the path?           |
//	     |   5. seal      sequence run, headers, batch of jobs      |
//	     |   6. send      Ethernet header, egress queue             |
//	     |                                                          |
//	    tx <------------------------- inbound ------------------- 1. rx
//	         2. classify    ESP, or clear
//	         3. sa          SPI -> SA, replay check
//	         4. open        batch of jobs, replay mark, inner packet
//	         5. policyBack  inner packet against the SA's selectors and the SPD
//	         6. route       next hop; does it fit the link? back to the wire: the SPD again
//	         7. seal        what turns back to the wire, for another peer
//	         8. send        Ethernet header, egress queue
//
// Each direction is one function, outbound and inbound, whose lines are the
// stages. A stage walks the burst's live packets and says Drop or Punt for
// those that end here; one place, finish, counts them and gives their frames
// back. Every frame received is counted exactly once:
//
//	rx + injected + fragments = tx + punted + cut + joined + waiting + drops
//
// In tunnel mode the packet is the payload of a new one. In transport mode ESP
// goes between the packet's IP header and its payload, and the two meet again
// when it is opened; what then is for an address of the gateway ends in route,
// as everything that fib calls Local does.
//
// A policy may want several SAs, one around the other. seal puts them on, the
// innermost first; what comes out of an SA and is under another one of ours is
// opened again behind open, up to spd.MaxBundle times, and policyBack compares
// the way it came by with all that its policy names.
//
// AH (RFC 4302) is rare: its packets are signed in seal and verified behind
// open, one by one, and cost ESP nothing. What routers may change counts as zeros
// in a copy of the headers; the packet itself is read only.
//
// A worker shares nothing that it changes with other workers but the SAs,
// which are lock-free. Policies, SAs and routes are immutable snapshots that
// the slow path publishes and the worker loads once a turn. What is rare goes
// to the slow path by ring: an SA that is missing, an ICMP error to be made, a
// neighbour to be resolved.
package pipeline
