package main

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"spigot/internal/uml"
)

// Datagrams of every residue of every block, and of what fits beside the
// longest header and trailer. All in one, each one way and its like back.
var (
	probeUDP  = []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 64, 255, 511, 1000, 1001, 1300}
	probeEcho = []int{0, 1, 56, 1001, 1300}
)

const probeSeconds = 20

// matrixCase is one pair of SAs.
type matrixCase struct {
	transform
	shape
	esn    bool
	spi    uint32 // of what the gateway sends; the next one is the guest's
	forged bool   // the two have different keys
}

// sizes are those of the datagrams that Linux takes in a shape.
func (s shape) sizes(all []int) []int {
	return slices.DeleteFunc(slices.Clone(all), func(n int) bool { return n < s.least })
}

// perProbe is how many packets a probe makes an SA carry.
func (s shape) perProbe() uint64 { return uint64(len(s.sizes(probeUDP)) + len(s.sizes(probeEcho))) }

// perSA is how many packets an SA carries: requests of one side and answers to
// the other's, of each family.
func (c *matrixCase) perSA() uint64 { return 2 * uint64(len(c.inners)) * c.perProbe() }

// start is the number before the first: with ESN so that half of the packets
// lie beyond 2^32, without it so that the last one but one of all numbers is
// used. The last one would expire the SA before its counters are read.
func (c *matrixCase) start() uint64 {
	if c.esn {
		return 1<<32 - c.perSA()/2
	}
	return 1<<32 - 2 - c.perSA()
}

// states is the batch that keys the gateway, or the guest.
func (c *matrixCase) states(guest bool) string {
	var b strings.Builder
	b.WriteString("xfrm state flush\n")
	near, far := nearAddr[c.outer], farAddr[c.outer]
	for i, ends := range [][2]string{{near, far}, {far, near}} {
		spi := c.spi + uint32(i)
		fmt.Fprintf(&b, "xfrm state add src %s dst %s proto %s spi %#x reqid 1 mode %s flag af-unspec", ends[0], ends[1], c.proto, spi, c.mode)
		counter := "replay-oseq"
		if inbound := guest == (i == 0); inbound {
			counter = "replay-seq"
		}
		if c.esn {
			fmt.Fprintf(&b, " flag esn replay-window 128 %s-hi %#x", counter, c.start()>>32)
		} else {
			b.WriteString(" replay-window 32")
		}
		seed := fmt.Sprint(c.name(), i, c.forged && guest)
		fmt.Fprintf(&b, " %s %#x%s%s\n", counter, uint32(c.start()), c.line(seed), c.extra)
	}
	return b.String()
}

func (c *matrixCase) name() string {
	esn := ""
	if c.esn {
		esn = "/esn"
	}
	return fmt.Sprintf("%s%s, %s in %d", c.transform.name, esn, c.shape.name, 4+2*c.outer)
}

// prepare keys both sides and notes what they have counted.
func (c *matrixCase) prepare(r *peerRig) (err error) {
	if err := r.key(c.states(false), c.states(true)); err != nil {
		return err
	}
	if r.dropped, err = r.gateway.drops(); err != nil {
		return err
	}
	r.refused, err = guestErrors(r.guest)
	return err
}

// run has both sides probe each other and holds their counters against each
// other. The verdict is an error for each inner family and side, and what is
// wrong with the case as a whole.
func (c *matrixCase) run(r *peerRig) (verdicts map[int][2]error, err error) {
	if err := c.prepare(r); err != nil {
		return nil, err
	}
	verdicts = make(map[int][2]error)
	for _, f := range c.inners {
		reports, err := c.probes(r, f, probeSeconds)
		if err != nil {
			return nil, err
		}
		var v [2]error
		for i, p := range reports {
			if p.Sent != int64(c.perProbe()) || p.Intact != p.Sent {
				v[i] = fmt.Errorf("asked by the %s, %d of %d came back: %s",
					[2]string{"gateway's side", "guest"}[i], p.Intact, p.Sent, strings.Join(p.Trouble[:min(4, len(p.Trouble))], "; "))
			}
		}
		verdicts[f] = v
	}
	return verdicts, c.holdCounters(r)
}

// probes has the host and the guest send each other the datagrams.
func (c *matrixCase) probes(r *peerRig, family, seconds int) (reports [2]uml.Report, err error) {
	probe := func(i int, a *uml.Agent, from, to string) error {
		answer, err := a.Call(uml.Request{Probe: &uml.Probe{From: from, To: to, UDP: c.sizes(probeUDP), Echo: c.sizes(probeEcho), Seconds: seconds}})
		reports[i] = answer.Report
		return err
	}
	near, far := c.ends()
	host := r.host
	if c.mode == "transport" {
		host = r.self
	}
	err = both(func() error { return probe(0, host, near[family], far[family]) },
		func() error { return probe(1, r.guest, far[family], near[family]) })
	return reports, err
}

// holdCounters holds that every packet was counted once, by both, and none
// refused.
func (c *matrixCase) holdCounters(r *peerRig) error {
	ours, err := r.gateway.traffic()
	if err != nil {
		return err
	}
	theirs, err := guestTraffic(r.guest)
	if err != nil {
		return err
	}
	for _, spi := range []uint32{c.spi, c.spi + 1} {
		if ours[spi] != c.perSA() || theirs[spi] != c.perSA() {
			return fmt.Errorf("SA %#x carried %d packets says the gateway, %d says the guest, of %d", spi, ours[spi], theirs[spi], c.perSA())
		}
	}
	drops, err := r.gateway.drops()
	if err != nil {
		return err
	}
	refused, err := guestErrors(r.guest)
	if err != nil {
		return err
	}
	if bad := slices.Concat(since(r.dropped, drops), since(r.refused, refused)); len(bad) > 0 {
		return fmt.Errorf("refused: %s", strings.Join(bad, ", "))
	}
	return nil
}

// score counts cases: a suite with or without ESN, a combination of headers, and
// who asks.
type score struct{ passed, total int }

func (s score) String() string { return fmt.Sprintf("%d/%d", s.passed, s.total) }

// A Linux kernel's IPsec stack and the gateway open what the other seals: every
// algorithm, with ESN across 2^32 and without up to its end, in every shape, to
// the last bit. SPIGOT_MATRIX=full tries every combination; else each algorithm
// meets each family of outer headers and ESN once. SPIGOT_TABLES names a file for
// the counts.
func TestLinuxAgrees(t *testing.T) {
	t.Parallel()
	full := os.Getenv("SPIGOT_MATRIX") == "full"
	r := newPeerRig(t)
	spi, tables := uint32(0x1000), ""
	for _, m := range matrices() {
		if !full {
			m.rows = short(m.rows)
		}
		scores := make(map[string]map[string]*score)
		for k, s := range m.shapes {
			spi += shapeSPIs
			t.Run(fmt.Sprintf("%s %s over IPv%d", m.name, s.name, 4+2*s.outer), func(t *testing.T) {
				defer r.within(t)()
				r.install(s)
				for i, row := range m.rows {
					for j, esn := range []bool{false, true} {
						if full || !m.skips(i, k, esn) {
							c := matrixCase{transform: row, shape: s, esn: esn, spi: spi + uint32(4*i+2*j)}
							c.judge(r, scores)
						}
					}
				}
				r.refuse(m.rows, s, spi+shapeSPIs/2)
			})
		}
		tables += fmt.Sprintf("%s\n%s\n", m.name, m.table(scores))
	}
	// What go test keeps to itself, or amid much else, make shows at its end.
	if path := os.Getenv("SPIGOT_TABLES"); path == "" {
		t.Log(tables)
	} else if err := os.WriteFile(path, []byte(tables), 0o644); err != nil {
		t.Error(err)
	}
}

// shapeSPIs is how many SPIs a shape has, half of them for SAs that agree.
const shapeSPIs = 0x1000

// within lets r report to a test inside its own until the function that it
// returns is called.
func (r *peerRig) within(t *testing.T) func() {
	outer := r.T
	r.T = t
	return func() { r.T = outer }
}

// With other keys, each side refuses all that the other sends, and says why:
// the judge above can say no.
func (r *peerRig) refuse(rows []transform, s shape, spi uint32) {
	r.Helper()
	for _, row := range []transform{rows[0], rows[len(rows)-1]} {
		c := matrixCase{transform: row, shape: s, esn: true, spi: spi, forged: true}
		spi += 2
		if err := c.prepare(r); err != nil {
			r.Fatal(err)
		}
		reports, err := c.probes(r, c.inners[0], 1)
		if err != nil {
			r.Fatal(err)
		}
		// The last ones are perhaps still on their way.
		want, ours, theirs := c.perProbe(), uint64(0), uint64(0)
		for end := time.Now().Add(20 * time.Second); (ours != want || theirs != want) && time.Now().Before(end); {
			drops, err := r.gateway.drops()
			if err != nil {
				r.Fatal(err)
			}
			refused, err := guestErrors(r.guest)
			if err != nil {
				r.Fatal(err)
			}
			ours, theirs = drops["auth_failed"]-r.dropped["auth_failed"], refused["XfrmInStateProtoError"]-r.refused["XfrmInStateProtoError"]
		}
		if reports[0].Intact != 0 || reports[1].Intact != 0 || ours != want || theirs != want {
			r.Errorf("%s with two keys: %d and %d came back; the gateway refused %d, the guest %d, of %d each",
				c.name(), reports[0].Intact, reports[1].Intact, ours, theirs, want)
		}
	}
}

// install puts the policies of a shape in force on both sides.
func (r *peerRig) install(s shape) {
	r.Helper()
	if err := r.key(s.policies(false), s.policies(true)); err != nil {
		r.Fatal(err)
	}
	if s.mode == "tunnel" {
		return
	}
	family := [2]string{"-4", "-6"}[s.outer]
	r.await("the gateway's own way to the guest", func() bool {
		out, err := exec.Command("ip", "-n", r.id+"g", family, "route", "get", farAddr[s.outer], "from", nearAddr[s.outer]).Output()
		return err == nil && strings.Contains(string(out), "enc0")
	})
}

// judge runs c and counts it.
func (c *matrixCase) judge(r *peerRig, scores map[string]map[string]*score) {
	verdicts, err := c.run(r)
	if err != nil {
		r.Errorf("%s: %v", c.name(), err)
	}
	for _, f := range c.inners {
		row := scores[c.transform.name]
		if row == nil {
			row = make(map[string]*score)
			scores[c.transform.name] = row
		}
		if row[c.column(f)] == nil {
			row[c.column(f)] = &score{}
		}
		for _, wrong := range verdicts[f] {
			row[c.column(f)].total++
			switch {
			case wrong != nil:
				r.Errorf("%s: %v", c.name(), wrong)
			case err == nil:
				row[c.column(f)].passed++
			}
		}
	}
}

// table prints the scores.
func (m *matrix) table(scores map[string]map[string]*score) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(w, "passed/total\t")
	var columns []string
	for _, s := range m.shapes {
		for _, f := range s.inners {
			columns = append(columns, s.column(f))
			fmt.Fprintf(w, "%s\t", s.column(f))
		}
	}
	fmt.Fprintln(w)
	all := score{}
	for _, row := range m.rows {
		fmt.Fprintf(w, "%s\t", row.name)
		for _, c := range columns {
			if s := scores[row.name][c]; s != nil {
				fmt.Fprintf(w, "%v\t", s)
				all.passed += s.passed
				all.total += s.total
			} else {
				fmt.Fprint(w, "\t")
			}
		}
		fmt.Fprintln(w)
	}
	_ = w.Flush() // into memory
	return b.String() + fmt.Sprintf("all: %v", all)
}
