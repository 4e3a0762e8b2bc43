package pfkey

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"spigot/control"
	"spigot/sad"
	"spigot/spd"
)

// ErrNoWord says that PF_KEY cannot express something.
var ErrNoWord = errors.New("pfkey: PF_KEY has no word for it")

// AddOf returns the ADD that makes the SA p; the message has copies of the
// keys, for the caller to wipe. It is ErrNoWord if PF_KEY cannot say all of p.
func AddOf(p *sad.Params) (*Message, error) {
	m := &Message{Type: Add}
	sa := control.SA{State: control.Mature}
	sa.Params = *p
	sa.EncKey, sa.AuthKey = bytes.Clone(p.EncKey), bytes.Clone(p.AuthKey)
	m.describe(&sa, 1<<ExtHard|1<<ExtSoft)
	if p.Proto != protoAH && numberOf(encAlgorithms, p.Encryption) == 0 || p.Integrity != "" && numberOf(authAlgorithms, p.Integrity) == 0 {
		m.Wipe()
		return nil, fmt.Errorf("%w: %s %s", ErrNoWord, p.Encryption, p.Integrity)
	}
	m.Has &^= 1<<ExtCurrent | 1<<ExtProxy
	if p.Window > 255 {
		m.Has |= 1 << ExtSAReplay
		m.Window = uint32(p.Window)
	}
	q, err := m.saParams()
	switch {
	case err != nil:
	case len(p.Selectors) > 0:
		err = fmt.Errorf("%w: selectors of an SA", ErrNoWord)
	case q.Soft != p.Soft || q.Hard != p.Hard:
		err = fmt.Errorf("%w: a lifetime of more than 2^32-1 packets", ErrNoWord)
	case p.Lookup != sad.ByDst:
		err = fmt.Errorf("%w: a lookup other than by SPI and destination", ErrNoWord)
	case q.Replay.Seq != p.Replay.Seq:
		err = fmt.Errorf("%w: a sequence number to start from", ErrNoWord)
	case q.Outer.String() != p.Outer.String():
		err = fmt.Errorf("%w: %s", ErrNoWord, p.Outer.String())
	case q.CPU != p.CPU:
		err = fmt.Errorf("%w: an SA for one worker", ErrNoWord)
	case q.ForDSCP != p.ForDSCP:
		err = fmt.Errorf("%w: an SA for some codepoints", ErrNoWord)
	case q.Align4 != p.Align4:
		err = fmt.Errorf("%w: align4", ErrNoWord)
	case q.Encryption != p.Encryption || q.Integrity != p.Integrity:
		err = fmt.Errorf("%w: %s %s", ErrNoWord, p.Encryption, p.Integrity)
	}
	if err != nil {
		m.Wipe()
		return nil, err
	}
	return m, nil
}

// SPDAddOf returns the X_SPDADD that makes the policy p. It is ErrNoWord if
// PF_KEY cannot say all of p: what counts is what a server would read.
func SPDAddOf(p *spd.Policy) (*Message, error) {
	m := &Message{Type: SPDAdd}
	m.describePolicy(&control.Policy{PolicyParams: control.PolicyParams{Policy: *p}})
	m.Has, m.Policy.ID = addresses|1<<ExtPolicy, 0
	q, err := m.policyParams(func() uint32 { return 0 })
	switch {
	case err != nil:
		return nil, err
	case q.Sel.Src != p.Sel.Src || q.Sel.Dst != p.Sel.Dst:
		return nil, fmt.Errorf("%w: addresses that are no prefix", ErrNoWord)
	case q.Sel != p.Sel:
		return nil, fmt.Errorf("%w: ports %d-%d to %d-%d of protocol %d: neither one nor all of them", ErrNoWord,
			p.Sel.SrcPort.Lo, p.Sel.SrcPort.Hi, p.Sel.DstPort.Lo, p.Sel.DstPort.Hi, p.Sel.Proto)
	case q.Level != p.Level:
		return nil, fmt.Errorf("%w: the types acquire and dontacq", ErrNoWord)
	case !slices.Equal(q.Templates(), p.Templates()):
		return nil, fmt.Errorf("%w: type use with a reqid", ErrNoWord)
	}
	return m, nil
}
