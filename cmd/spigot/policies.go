package main

import "spigot/control/ipsecconf"

// loadPolicies reads the ipsec.conf that c names; without one there are no
// policies, and everything is discarded. The caller wipes what it returns,
// which is never nil.
func loadPolicies(c *Config) (*ipsecconf.Config, error) {
	if c.IPsecConf == "" {
		return &ipsecconf.Config{}, nil
	}
	conf, err := ipsecconf.Parse(c.IPsecConf)
	if err != nil {
		return &ipsecconf.Config{}, err
	}
	return conf, nil
}

// wipe zeroes the keys that conf holds. SAs have copies of their own.
func wipe(conf *ipsecconf.Config) {
	for _, sa := range conf.SAs {
		clear(sa.EncKey)
		clear(sa.AuthKey)
	}
}
