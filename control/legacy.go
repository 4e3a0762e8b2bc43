package control

import (
	"fmt"

	"spigot/crypto"
	"spigot/sad"
)

// AllowsLegacy says whether SAs may have algorithms that are there for old
// peers only: those that crypto.Legacy names.
func (c *Controller) AllowsLegacy() bool { return c.cfg.AllowLegacy }

// checkLegacy refuses such an SA, as a kernel that was built without would,
// unless the operator has allowed it.
func (c *Controller) checkLegacy(p *sad.Params) error {
	if c.cfg.AllowLegacy || !crypto.Legacy(p.Integrity) {
		return nil
	}
	return fmt.Errorf("%w: %s is for old peers only (RFC 8221, section 6): use hmac-sha2-256 or an AEAD, or allow it with "+
		"--allow-legacy", crypto.ErrAlgorithm, p.Integrity)
}
