package sad

import (
	"fmt"
	"math/rand/v2"
	"strings"

	"spigot/internal/flow"
)

// Outer says how an SA in tunnel mode fills its outer header, and what of that
// header goes over to the inner packet (RFC 4301, section 5.1.2; RFC 6040). The
// zero Outer is what OpenBSD and VPP do: DSCP, ECN and DF are the inner packet's.
// Transport mode has no outer header and ignores it.
type Outer struct {
	DF    DF        // of IPv4
	Label FlowLabel // of IPv6
	TTL   uint8     // or hop limit; 0: 64
	// NoECN keeps congestion marks out of the tunnel, both ways: the outer header
	// is Not-ECT (RFC 6040, section 4.1, compatibility mode), and what it says at
	// the end is not looked at.
	NoECN bool
	// DecapDSCP gives the inner packet the outer header's codepoint. Without it the
	// inner packet keeps its own, which nobody on the way can have changed.
	DecapDSCP bool
	// SplitFirst fragments an IPv4 packet that may be fragmented, and is too big for
	// the path, before it is sealed. Without it the outer packet is fragmented, which
	// the peer has to put together again before it can open it.
	SplitFirst bool
	// MSS is the most that the maximum segment size of a TCP connection may be whose
	// SYN the SA carries; 0: leave it, MSSPath: what fits the path.
	MSS uint16
	// TFC is the least length of an inner packet in bytes: shorter ones are padded,
	// so that nobody learns their length (RFC 4303, section 2.7), if the path takes
	// them then; 0: none are, TFCPath: all are padded to what fits the path.
	TFC uint16
	// Dummy is how many dummy packets a second an SA sends while it carries nothing
	// else (RFC 4303, section 2.6); 0: none.
	Dummy uint16
	// DSCP is the outer codepoint by the inner one; nil: the same.
	DSCP *DSCPMap `json:",omitempty"`
}

// DSCPMap is a codepoint, 0 to 63, for each.
type DSCPMap [64]uint8

// DSCPSet returns the map of all codepoints to one.
func DSCPSet(codepoint uint8) *DSCPMap {
	m := new(DSCPMap)
	for i := range m {
		m[i] = codepoint
	}
	return m
}

// MinMSS is the least Outer.MSS: of the least IPv4 packet that every host takes,
// with the longest headers.
const MinMSS = 576 - 60 - 60

// MSSPath as Outer.MSS stands for what fits the path.
const MSSPath = 1<<16 - 1

// TFCPath as Outer.TFC stands for what fits the path.
const TFCPath = 1<<16 - 1

// MaxDummy is the largest Outer.Dummy: more would not be idle.
const MaxDummy = 1000

// DF says what becomes of don't-fragment in an outer IPv4 header (RFC 4301,
// section 8.1).
type DF uint8

// The ways with DF. An IPv6 packet, which routers never fragment, counts as one
// that has it.
const (
	DFCopy  DF = iota // the inner packet's
	DFSet             // always: nobody fragments on the way
	DFClear           // never: what is too big for the path arrives in fragments
	numDF
)

var dfNames = [numDF]string{"copy", "set", "clear"}

// String returns the word for d in ipsec.conf.
func (d DF) String() string { return nameIn(dfNames[:], int(d)) }

// FlowLabel says what flow label an outer IPv6 header gets.
type FlowLabel uint8

// The flow labels. A hash keeps the packets of one inner flow on one path and
// spreads flows over several (RFC 6438), and so tells who watches the tunnel
// which packets belong together.
const (
	LabelZero FlowLabel = iota
	LabelCopy           // the inner packet's; 0 for IPv4
	LabelHash           // of the inner packet's addresses, protocol and ports
	numLabels
)

var labelNames = [numLabels]string{"zero", "copy", "hash"}

// String returns the word for l in ipsec.conf.
func (l FlowLabel) String() string { return nameIn(labelNames[:], int(l)) }

func nameIn(names []string, i int) string {
	if i >= len(names) {
		return "unknown"
	}
	return names[i]
}

// String lists what differs from the zero Outer, in the words of ipsec.conf.
func (o *Outer) String() string {
	var words []string
	if o.DF != DFCopy {
		words = append(words, "df "+o.DF.String())
	}
	if o.DSCP != nil {
		words = append(words, "dscp "+o.DSCP.String())
	}
	if o.NoECN {
		words = append(words, "ecn off")
	}
	if o.TTL != 0 {
		words = append(words, fmt.Sprintf("ttl %d", o.TTL))
	}
	if o.Label != LabelZero {
		words = append(words, "flowlabel "+o.Label.String())
	}
	if o.SplitFirst {
		words = append(words, "fragment before")
	}
	switch o.MSS {
	case 0:
	case MSSPath:
		words = append(words, "mss path")
	default:
		words = append(words, fmt.Sprintf("mss %d", o.MSS))
	}
	switch o.TFC {
	case 0:
	case TFCPath:
		words = append(words, "tfc-pad mtu")
	default:
		words = append(words, fmt.Sprintf("tfc-pad %d", o.TFC))
	}
	if o.Dummy != 0 {
		words = append(words, fmt.Sprintf("dummy %d", o.Dummy))
	}
	if o.DecapDSCP {
		words = append(words, "decapdscp copy")
	}
	return strings.Join(words, " ")
}

// String lists what m changes, "a:b" for each codepoint a that becomes b, or the
// codepoint that all become.
func (m *DSCPMap) String() string {
	if *m == *DSCPSet(m[0]) {
		return fmt.Sprint(m[0])
	}
	var words []string
	for a, b := range m {
		if uint8(a) != b {
			words = append(words, fmt.Sprintf("%d:%d", a, b))
		}
	}
	return "{ " + strings.Join(words, ", ") + " }"
}

// check says what is wrong with o, "" if nothing is.
func (o *Outer) check() string {
	if o.DF >= numDF || o.Label >= numLabels {
		return fmt.Sprintf("DF mode %d, flow label mode %d: there are 0 to %d and 0 to %d", o.DF, o.Label, numDF-1, numLabels-1)
	}
	if o.MSS != 0 && o.MSS < MinMSS {
		return fmt.Sprintf("MSS %d: at least %d, or 0 for none", o.MSS, MinMSS)
	}
	if o.Dummy > MaxDummy {
		return fmt.Sprintf("%d dummy packets a second: at most %d", o.Dummy, MaxDummy)
	}
	if o.DSCP == nil {
		return ""
	}
	for a, b := range o.DSCP {
		if b >= 64 {
			return fmt.Sprintf("DSCP %d is to become %d: codepoints are 0 to 63", a, b)
		}
	}
	return ""
}

// clone copies o with what it points to.
func (o Outer) clone() Outer {
	if o.DSCP != nil {
		m := *o.DSCP
		o.DSCP = &m
	}
	return o
}

// ttl returns the outer header's time to live.
func (o *Outer) ttl() uint8 {
	if o.TTL == 0 {
		return outerTTL
	}
	return o.TTL
}

// tosTable returns the outer type of service by the inner one, nil where they
// are the same.
func (o *Outer) tosTable() *[256]uint8 {
	if o.DSCP == nil && !o.NoECN {
		return nil
	}
	t := new([256]uint8)
	for tos := range t {
		dscp, ecn := uint8(tos)>>2, uint8(tos)&3
		if o.DSCP != nil {
			dscp = o.DSCP[dscp]
		}
		if o.NoECN {
			ecn = 0
		}
		t[tos] = dscp<<2 | ecn
	}
	return t
}

// TOS returns the type of service, or traffic class, of the outer header around
// a packet that has inner.
func (sa *Outbound) TOS(inner uint8) uint8 {
	if sa.tos == nil {
		return inner
	}
	return sa.tos[inner]
}

// HashLabel returns the flow label for the inner flow t, never 0 (RFC 6437,
// section 3). The SA's own seed goes into it, so that it tells nothing of t but
// that packets belong together.
func (sa *Outbound) HashLabel(t *flow.Tuple) uint32 {
	h := mix(t.Src.Hi^sa.labelSeed[0], t.Src.Lo^sa.labelSeed[1])
	h = mix(h^t.Dst.Hi, t.Dst.Lo^sa.labelSeed[1])
	h = mix(h^uint64(t.SrcPort)<<24^uint64(t.DstPort)<<8^uint64(t.Proto), sa.labelSeed[0])
	return max(uint32(h)&0xfffff, 1)
}

func newLabelSeed() [2]uint64 { return [2]uint64{rand.Uint64() | 1, rand.Uint64() | 1} }
