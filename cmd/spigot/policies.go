package main

import (
	"spigot/control"
	"spigot/control/ipsecconf"
	"spigot/control/kernel"
	"spigot/internal/epoch"
	"spigot/internal/flow"
	"spigot/pipeline"
)

// loadPolicies reads and tries the ipsec.conf that c names; without one there
// are no policies, and everything is discarded. The caller wipes what it
// returns, which is never nil.
func loadPolicies(c *Config) (*ipsecconf.Config, error) {
	if c.IPsecConf == "" {
		return &ipsecconf.Config{}, nil
	}
	conf, err := ipsecconf.Parse(c.IPsecConf)
	if err != nil {
		return &ipsecconf.Config{}, err
	}
	return conf, tryPolicies(c, conf)
}

// tryPolicies has a slow path without workers and ports load conf, so that
// what it refuses (a manual key, two SAs with one SPI) is told before anything
// is attached.
func tryPolicies(c *Config, conf *ipsecconf.Config) error {
	var tables pipeline.Snapshots
	ctl, err := control.New(control.Config{
		IPsec:           &tables.IPsec,
		FIB:             &tables.FIB,
		Epochs:          &epoch.Domain{},
		Mirror:          noMirror{},
		AllowManualAEAD: c.AllowManualAEAD,
		AllowLegacy:     c.AllowLegacy,
	})
	if err != nil {
		return err
	}
	defer ctl.Close()
	return ctl.Load(conf)
}

// noMirror is a kernel that never says anything.
type noMirror struct{}

// Updates implements control.Mirror.
func (noMirror) Updates() <-chan *kernel.View { return nil }

// Resolve implements control.Mirror.
func (noMirror) Resolve(int, flow.Addr) {}

// wipe zeroes the keys that conf holds. SAs have copies of their own.
func wipe(conf *ipsecconf.Config) {
	for _, sa := range conf.SAs {
		clear(sa.EncKey)
		clear(sa.AuthKey)
	}
}
