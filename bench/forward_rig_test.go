package bench_test

import (
	"net/netip"
	"testing"
	"time"

	"spigot/internal/affinity"
	"spigot/internal/counter"
	"spigot/pmd"
	"spigot/pmd/afxdp"
	"spigot/pmd/asavie"
)

// driver opens ports whose frames are of one pool.
type driver struct {
	name string
	over func(testing.TB, *pmd.Pool) opener
}

// opener opens a port of the interface called name, on which the program is
// attached. The calling thread is in the interface's namespace.
type opener func(name string, program *afxdp.Steering) (pmd.Port, error)

var drivers = []driver{{"afxdp", native}, {"asavie", older}}

// Both drivers are steered by one program.
var _ asavie.Registrar = (*afxdp.Steering)(nil)

func native(b testing.TB, pool *pmd.Pool) opener {
	umem, err := afxdp.NewUMEM(pool)
	if err != nil {
		b.Fatal(err)
	}
	return func(name string, program *afxdp.Steering) (pmd.Port, error) {
		return afxdp.Open(afxdp.Options{Interface: name, UMEM: umem, Steering: program})
	}
}

func older(_ testing.TB, pool *pmd.Pool) opener {
	return func(name string, program *afxdp.Steering) (pmd.Port, error) {
		return asavie.Open(asavie.Options{Interface: name, Pool: pool, Registrar: program})
	}
}

// forward is the gateway at gwA between two wires:
//
//	source src == red | gateway | black == dst sink
//
// The source has the first core and the gateway's worker the last.
type forward struct {
	*rig
	hosts, gw  *namespace
	red, black pmd.Port
	source     *source
}

// poolFrames is what four rings of two ports can hold, so that no fill ring
// waits for the pool.
const poolFrames = 1 << 14

func newForward(b testing.TB, d driver, allowed []int) *forward {
	b.Helper()
	f := &forward{hosts: newNamespace(b), gw: newNamespace(b)}
	f.gw.veth(b, "red", redMAC, f.hosts, "src")
	f.gw.veth(b, "black", blackMAC, f.hosts, "dst")
	sink(b, f.hosts, "dst")
	f.source = newSource(b, f.hosts, "src", allowed[0])

	pool := newPool(b, poolFrames)
	b.Cleanup(func() {
		if pool.Len() != pool.Cap() || pool.Bad() != 0 {
			b.Errorf("%d of %d frames home, %d returned in error", pool.Len(), pool.Cap(), pool.Bad())
		}
	})
	open := d.over(b, pool)
	f.red, f.black = f.port(b, "red", open), f.port(b, "black", open)
	f.rig = assemble(b, false, pool, f.red, f.black)
	f.outbound(b, suites()[0])
	f.drive(b, allowed)
	return f
}

// cores returns the cores that the process may use: two at least.
func cores(b testing.TB) []int {
	b.Helper()
	allowed, err := affinity.Allowed()
	if err != nil {
		b.Fatal(err)
	}
	if len(allowed) < 2 {
		b.Fatalf("two cores are needed, one for the source and one for the gateway, and this process may use %s only (taskset, cpuset)",
			affinity.Format(allowed))
	}
	return allowed
}

// port attaches the program to the gateway's interface called name, as a
// gateway does, and opens queue 0 of it.
func (f *forward) port(b testing.TB, name string, open opener) (p pmd.Port) {
	b.Helper()
	err := f.gw.do(func() error {
		program, err := afxdp.Attach(name, afxdp.SteeringOptions{DropUnbound: true})
		if err != nil {
			return err
		}
		b.Cleanup(func() { check(b, program.Close()) })
		if err := program.SetLocal([]netip.Addr{netip.MustParseAddr("192.0.2.1")}); err != nil {
			return err
		}
		p, err = open(name, program)
		if err == nil {
			b.Cleanup(func() { check(b, p.Close()) })
		}
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	return p
}

func check(b testing.TB, err error) {
	b.Helper()
	if err != nil {
		b.Error(err)
	}
}

// patience is how long await waits for one more packet. A machine that others
// use may take most of a second to come back to the worker.
const patience = 10 * time.Second

// await waits until n packets more than from have arrived at the sink and
// returns how many did.
func (f *forward) await(b testing.TB, from, n uint64, ended <-chan error) uint64 {
	b.Helper()
	last, since := uint64(0), time.Now()
	for ; ; time.Sleep(time.Millisecond) {
		got := f.arrived(b) - from
		if got >= n {
			return got
		}
		if got > last {
			last, since = got, time.Now()
		}
		select {
		case err := <-ended:
			b.Fatalf("the source ended: %v", err)
		default:
		}
		if time.Since(since) > patience {
			b.Fatalf("no packet arrived for %v, after %d of %d\noffered %d, counted %+v\nred %+v\nblack %+v",
				patience, got, n, f.offered(b), f.c.Load(), f.red.Stats(), f.black.Stats())
		}
	}
}

// offered returns how many packets the source brought to the gateway.
func (f *forward) offered(b testing.TB) uint64 { return f.gw.received(b, "red") }

// arrived returns how many packets came to the sink.
func (f *forward) arrived(b testing.TB) uint64 { return f.hosts.received(b, "dst") }

// sample is what is counted at one moment.
type sample struct {
	at      time.Time
	offered uint64
	waited  time.Duration
	gateway counter.Values
}

func (f *forward) sample(b testing.TB) sample {
	b.Helper()
	return sample{time.Now(), f.offered(b), waited(b, f.thread), f.c.Load()}
}
