package pfkey

import (
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"
)

// String writes m on one line for people: what kind of message it is, of
// whom, and what it has, without keys.
func (m *Message) String() string {
	w := &strings.Builder{}
	w.WriteString(m.Type.String())
	if m.SAType != Unspec {
		fmt.Fprintf(w, " %v", m.SAType)
	}
	if m.Type == Register && m.Errno == unix.ENOBUFS {
		fmt.Fprintf(w, ": %d messages lost: this reader is too slow", m.Seq)
		return w.String()
	}
	fmt.Fprintf(w, " seq %d pid %d", m.Seq, m.PID)
	if m.Errno != 0 {
		fmt.Fprintf(w, ": %s", m.Errno.Error())
	}
	if text := m.Content(); text != "" {
		fmt.Fprintf(w, ": %s", text)
	}
	return w.String()
}

// Content writes what m is about, as String does, without saying what kind of
// message it is.
func (m *Message) Content() string {
	w := &strings.Builder{}
	switch {
	case m.Has.Has(ExtSA):
		m.writeSA(w)
	case m.Has&addresses == addresses:
		fmt.Fprintf(w, "%v -> %v", m.Src, m.Dst)
	}
	if m.Has.Has(ExtPolicy) {
		m.Policy.write(w)
	}
	for _, l := range [...]struct {
		ext  Ext
		name string
		l    *Lifetime
	}{{ExtCurrent, "carried", &m.Current}, {ExtSoft, "soft", &m.Soft}, {ExtHard, "hard", &m.Hard}} {
		if m.Has.Has(l.ext) {
			l.l.write(w, l.name)
		}
	}
	if m.Has.Has(ExtSupportedEnc) {
		fmt.Fprintf(w, "%d ciphers, %d hashes", len(m.EncAlgs), len(m.AuthAlgs))
	}
	if m.Has.Has(ExtProposal) {
		fmt.Fprintf(w, ", %d proposals", len(m.Proposal.Combs))
	}
	return w.String()
}

// String writes an address, with what it stands for where that is more than a
// host.
func (a Address) String() string {
	text := a.Addr.String()
	if int(a.Prefix) != a.Addr.BitLen() {
		text = netip.PrefixFrom(a.Addr, int(a.Prefix)).String()
	}
	if a.Port != 0 {
		text += fmt.Sprintf("[%d]", a.Port)
	}
	if a.Proto != 0 && a.Proto != anyProto {
		text += fmt.Sprintf(" proto %d", a.Proto)
	}
	return text
}

func (m *Message) writeSA(w *strings.Builder) {
	fmt.Fprintf(w, "SPI %#x", m.SA.SPI)
	if m.Has&addresses == addresses {
		fmt.Fprintf(w, " %v -> %v", m.Src, m.Dst)
	}
	if m.Type == NATNewMapping {
		fmt.Fprintf(w, ", port %d -> %d", m.NATSport, m.NATDport)
		return
	}
	fmt.Fprintf(w, " %s", stateName(m.SA.State))
	if m.Has.Has(ExtSA2) {
		fmt.Fprintf(w, " %s", modeName(m.SA2.Mode))
		if m.SA2.Reqid != 0 {
			fmt.Fprintf(w, " reqid %d", m.SA2.Reqid)
		}
	}
	if m.SA.Enc != 0 {
		enc, _ := numbered(encAlgorithms, m.SA.Enc)
		fmt.Fprintf(w, " %s", nameOr(enc.name, m.SA.Enc))
	}
	if m.SA.Auth != 0 && m.SA.Auth != noAuth {
		auth, _ := numbered(authAlgorithms, m.SA.Auth)
		fmt.Fprintf(w, " %s", nameOr(auth.name, m.SA.Auth))
	}
	if m.SA.Flags&SAESN != 0 {
		w.WriteString(" esn")
	}
	if m.Has.Has(ExtNATType) {
		fmt.Fprintf(w, " udp %d -> %d", m.NATSport, m.NATDport)
	}
}

func (q *Policy) write(w *strings.Builder) {
	kind := [...]string{"discard", "bypass", "ipsec", "entrust", "bypass"}
	dir := [...]string{"any", "in", "out", "fwd"}
	if w.Len() > 0 {
		w.WriteString(", ")
	}
	w.WriteString("policy")
	if q.ID != 0 {
		fmt.Fprintf(w, " %d", q.ID)
	}
	fmt.Fprintf(w, " %s %s priority %d", pick(dir[:], int(q.Dir)), pick(kind[:], int(q.Kind)), q.Priority)
	level := [...]string{"default", "use", "require", "unique"}
	for i := range q.Requests {
		r := &q.Requests[i]
		fmt.Fprintf(w, " [%v %s %s", SATypeOf(uint8(r.Proto)), modeName(r.Mode), pick(level[:], int(r.Level)))
		if r.Src.IsValid() {
			fmt.Fprintf(w, " %v -> %v", r.Src, r.Dst)
		}
		if r.Reqid != 0 {
			fmt.Fprintf(w, " reqid %d", r.Reqid)
		}
		w.WriteByte(']')
	}
}

// write writes what of l is not 0. Times of what was carried are dates, which a
// line of a log has anyway.
func (l *Lifetime) write(w *strings.Builder, name string) {
	var parts []string
	add := func(n uint64, unit string) {
		if n != 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, unit))
		}
	}
	add(uint64(l.Allocations), "packets")
	add(l.Bytes, "bytes")
	if name != "carried" {
		add(l.AddTime, "s")
		add(l.UseTime, "s of use")
	}
	if len(parts) > 0 {
		fmt.Fprintf(w, ", %s %s", name, strings.Join(parts, " "))
	}
}

func stateName(s uint8) string {
	return pick([]string{"larval", "mature", "dying", "dead"}, int(s))
}
func modeName(m uint8) string { return pick([]string{"any", "transport", "tunnel"}, int(m)) }

// pick returns name i, or the number where it has none.
func pick(names []string, i int) string {
	if i < len(names) {
		return names[i]
	}
	return fmt.Sprint(i)
}

func nameOr(name string, number uint8) string {
	if name == "" {
		return fmt.Sprintf("algorithm %d", number)
	}
	return name
}
