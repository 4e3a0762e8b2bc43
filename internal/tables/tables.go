// Package tables is how SPD and SAD reach the workers: as one, behind one
// pointer, so that no packet meets the policies of one moment and the SAs of
// another (RFC 4301, section 4.4).
package tables

import (
	"sync/atomic"

	"spigot/sad"
	"spigot/spd"
)

// Tables are the databases at one moment. They do not change.
type Tables struct {
	SPD spd.Snapshot
	SAD *sad.Snapshot
}

// Published is where workers find the Tables, each once a turn. One goroutine
// stores at a time. The zero Published has none yet.
type Published struct{ now atomic.Pointer[Tables] }

// Load returns what was published last, nil before the first.
func (p *Published) Load() *Tables { return p.now.Load() }

// Store publishes both databases.
func (p *Published) Store(policies spd.Snapshot, sas *sad.Snapshot) {
	p.now.Store(&Tables{policies, sas})
}

// StoreSPD publishes policies beside the SAs there are.
func (p *Published) StoreSPD(policies spd.Snapshot) {
	var sas *sad.Snapshot
	if t := p.now.Load(); t != nil {
		sas = t.SAD
	}
	p.Store(policies, sas)
}

// StoreSAD publishes SAs beside the policies there are.
func (p *Published) StoreSAD(sas *sad.Snapshot) {
	var policies spd.Snapshot
	if t := p.now.Load(); t != nil {
		policies = t.SPD
	}
	p.Store(policies, sas)
}
