package sad

import (
	"fmt"
	"math/bits"
	"strings"
)

// Several outbound SAs of one policy may be told apart by the DSCP of the packets
// (RFC 4301, sections 4.1 and 4.4.2.1), so that a network which lets some classes
// overtake others does not carry packets out of the replay window: each class has
// sequence numbers of its own. Of such a policy a packet takes the SA that is for
// its codepoint, else the one that is for all. Inbound nothing is asked: what
// arrives by an SA may have any codepoint.

// Codepoints is a set of DSCPs (RFC 2474), 0 to 63: bit k is that of codepoint k.
type Codepoints uint64

// CodepointsOf returns the set of these.
func CodepointsOf(dscps ...uint8) (set Codepoints) {
	for _, d := range dscps {
		set |= 1 << (d & 63)
	}
	return set
}

// Has says whether c has the codepoint.
func (c Codepoints) Has(dscp uint8) bool { return c>>(dscp&63)&1 != 0 }

// All yields the codepoints in c, the lowest first.
func (c Codepoints) All(yield func(uint8) bool) {
	for ; c != 0; c &= c - 1 {
		if !yield(uint8(bits.TrailingZeros64(uint64(c)))) {
			return
		}
	}
}

// String writes c as ipsec.conf has it: one codepoint, or "{ 34, 46 }".
func (c Codepoints) String() string {
	var words []string
	for d := range c.All {
		words = append(words, fmt.Sprint(d))
	}
	if len(words) == 1 {
		return words[0]
	}
	return "{ " + strings.Join(words, ", ") + " }"
}

// Classes is, by codepoint, the SAs of a policy that are for some codepoints
// only; nil: there is none for this one.
type Classes [64]*Outbound

// choice is what an Outbound has that stands for several SAs of a policy, one of
// which each packet takes.
type choice struct {
	cpus    []*Outbound // by worker; in front the one for all others, which may be nil
	classes *Classes    // nil: none is for some codepoints only
}

// on returns the SA of the worker cpu.
func (c *choice) on(cpu uint16) *Outbound {
	if int(cpu) < len(c.cpus) && c.cpus[cpu] != nil {
		return c.cpus[cpu]
	}
	return c.cpus[0]
}

// OutboundsOn is OutboundOn, with the SAs of the policy that come before sa for
// the codepoints that they are for; classes is nil where there are none.
func (s *Snapshot) OutboundsOn(policy uint32, cpu uint16) (sa *Outbound, classes *Classes) {
	sa = s.out.get(s.seed.policy(&policy), &policy)
	if sa != nil && sa.choice != nil {
		return sa.choice.on(cpu), sa.choice.classes
	}
	return sa, nil
}

// several is what the DB knows of a choice.
type several struct {
	cpus []*outEntry // in front the one for all, which may be nil
	dscp [64]*outEntry
}

// put notes e, an SA for one worker or for some codepoints. Of several for one
// codepoint the first stays.
func (s *several) put(e *outEntry) error {
	if cpu := int(e.sa.CPU); cpu != 0 {
		for len(s.cpus) <= cpu {
			s.cpus = append(s.cpus, nil)
		}
		if s.cpus[cpu] != nil {
			return fmt.Errorf("%w: two for worker %d: bind the newer one", ErrParams, cpu-1)
		}
		s.cpus[cpu] = e
	}
	for d := range e.sa.ForDSCP.All {
		if s.dscp[d] == nil {
			s.dscp[d] = e
		}
	}
	return nil
}

// own yields the SAs that are not for all, some of them several times.
func (s *several) own(yield func(*outEntry) bool) {
	for _, list := range [][]*outEntry{s.cpus[1:], s.dscp[:]} {
		for _, e := range list {
			if e != nil && !yield(e) {
				return
			}
		}
	}
}

// choice returns what workers see of s.
func (s *several) choice() *choice {
	c := &choice{cpus: make([]*Outbound, len(s.cpus))}
	for i, e := range s.cpus {
		if e != nil {
			c.cpus[i] = e.sa
		}
	}
	for d, e := range s.dscp {
		if e == nil {
			continue
		}
		if c.classes == nil {
			c.classes = new(Classes)
		}
		c.classes[d] = e.sa
	}
	return c
}
