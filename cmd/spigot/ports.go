package main

import (
	"errors"
	"fmt"
	"os"

	"spigot/control"
	"spigot/control/host"
	"spigot/control/kernel"
	"spigot/pipeline"
	"spigot/pmd"
	"spigot/pmd/afxdp"
	"spigot/pmd/asavie"
	"spigot/pmd/capture"
	"spigot/pmd/fault"
)

// attachPrograms attaches the steering program to each port. What arrives for
// us on a queue without a socket is dropped: the kernel might forward it in
// clear.
func (g *gateway) attachPrograms() error {
	for _, port := range g.cfg.Ports {
		mode, err := afxdp.ParseMode(port.Mode)
		if err != nil {
			return err
		}
		st, err := afxdp.Attach(port.Name, afxdp.SteeringOptions{
			Mode:        mode,
			DropUnbound: true,
			Guard:       g.cfg.Enc != "" && port.Side == pipeline.Wire,
			Jumbo:       g.cfg.Jumbo.Count > 0,
		})
		if err != nil {
			return err
		}
		g.cleanup.add("detach the program", st.Close)
		g.steerings = append(g.steerings, st)
	}
	return nil
}

// startRecorders opens the capture file of each port that has one.
func (g *gateway) startRecorders() error {
	g.recorders = make([]*capture.Recorder, len(g.cfg.Ports))
	for p, port := range g.cfg.Ports {
		if port.Capture == "" {
			continue
		}
		file, err := os.OpenFile(port.Capture, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
		if err != nil {
			return fmt.Errorf("capture of %s: %w", port.Name, err)
		}
		g.cleanup.add("close the capture file", file.Close)
		r, err := capture.NewRecorder(file, capture.Options{Rx: true, Tx: true})
		if err != nil {
			return fmt.Errorf("capture of %s: %w", port.Name, err)
		}
		g.cleanup.add("end the capture", func() error {
			err := r.Close()
			g.log.Info("capture ended", "port", port.Name, "file", port.Capture, "packets", r.Written(), "missed", r.Dropped())
			return err
		})
		g.recorders[p] = r
	}
	return nil
}

// openHost makes the host's device, if the configuration names one.
func (g *gateway) openHost() error {
	if g.cfg.Enc == "" {
		return nil
	}
	d, err := host.Open(host.Config{
		Name:    g.cfg.Enc,
		Workers: len(g.cfg.Cores),
		Deliver: func(port int, frame []byte) error { return g.steerings[port].Deliver(frame) },
		Log:     g.log,
	})
	if err != nil {
		return err
	}
	g.host = d
	g.cleanup.add("remove "+g.cfg.Enc, d.Close)
	return nil
}

// openQueues opens worker i's queues of port p.
func (g *gateway) openQueues(p, i int, w *worker) ([]pmd.Port, error) {
	var queues []pmd.Port
	for _, queue := range g.cfg.Ports[p].Queues[i] {
		q, err := g.openQueue(p, queue, w)
		if err != nil {
			return nil, err
		}
		if q, err = g.wrap(q, p, w.pool); err != nil {
			return nil, err
		}
		queues = append(queues, q)
	}
	return queues, nil
}

// openQueue opens one queue by the port's driver.
func (g *gateway) openQueue(p, queue int, w *worker) (pmd.Port, error) {
	port := g.cfg.Ports[p]
	if port.Driver == "asavie" {
		return asavie.Open(asavie.Options{
			Interface: port.Name,
			Queue:     queue,
			Pool:      w.pool,
			Registrar: g.steerings[p],
		})
	}
	mode, err := afxdp.ParseMode(port.Mode)
	if err != nil {
		return nil, err
	}
	return afxdp.Open(afxdp.Options{
		Interface: port.Name,
		Queue:     queue,
		UMEM:      w.umem,
		Steering:  g.steerings[p],
		Mode:      mode,
	})
}

// wrap puts what the configuration asks for around q, a queue of port p, and
// sees to its end: the outermost closes what it wraps.
func (g *gateway) wrap(q pmd.Port, p int, pool *pmd.Pool) (pmd.Port, error) {
	outer := &q
	g.cleanup.add("release "+g.cfg.Ports[p].Name, func() error { return (*outer).Close() })
	if r := g.recorders[p]; r != nil {
		recorded, err := r.Wrap(q, pool)
		if err != nil {
			return nil, fmt.Errorf("capture of %s: %w", g.cfg.Ports[p].Name, err)
		}
		q = recorded
	}
	if f := g.cfg.Faults; f != (Faults{}) {
		faulty, err := fault.New(q, pool, fault.Options{
			Seed:        f.Seed,
			RxLose:      f.RxLose,
			RxCorrupt:   f.RxCorrupt,
			RxTruncate:  f.RxTruncate,
			RxDuplicate: f.RxDuplicate,
			RxReorder:   f.RxReorder,
			TxShort:     f.TxShort,
			TxLose:      f.TxLose,
		})
		if err != nil {
			return nil, fmt.Errorf("faults of %s: %w", g.cfg.Ports[p].Name, err)
		}
		q = faulty
	}
	return q, nil
}

// controlPorts lists the ports as the slow path sees them.
func (g *gateway) controlPorts() []control.Port {
	ports := make([]control.Port, len(g.cfg.Ports))
	for p, port := range g.cfg.Ports {
		st, member := g.steerings[p], new(kernel.Member)
		g.cleanup.add("leave groups", member.Close)
		ports[p] = control.Port{
			Name:     port.Name,
			Side:     port.Side.String(),
			SetLocal: st.SetLocal,
			SetGroups: func(link int, want control.Groups) error {
				return errors.Join(
					st.SetGroups(afxdp.Groups{IPsec: want.IPsec, All: want.All}),
					member.Set(link, want.Join, want.JoinAll))
			},
			Check: func() error { return g.mend(st) },
		}
		for _, w := range g.workers {
			ports[p].Queues = append(ports[p].Queues, w.queues[p]...)
		}
	}
	return ports
}

// mend attaches the program again when somebody took it away. The error says
// why it could not.
func (g *gateway) mend(st *afxdp.Steering) error {
	err := st.Check()
	if err == nil {
		return nil
	}
	if again := st.Reattach(); again != nil {
		return again
	}
	g.log.Warn("somebody took the XDP program away; it is attached again", "port", st.Interface(), "was", err)
	return nil
}
