package sad

import "math"

// pathUnknown is the path MTU of an SA that has not heard of any.
const pathUnknown = math.MaxUint16

// fragmentsOnPath marks a path that is narrower than PathMTU says.
const fragmentsOnPath = 1 << 16

// PathMTU returns the largest outer packet that the path to the peer is known to
// carry (RFC 4301, section 8.2), 65535 if nothing is. The link has a say, too.
func (sa *Outbound) PathMTU() int { return int(sa.path.Load() & pathUnknown) }

// PathFragments says that routers on the path may have to fragment what PathMTU
// lets pass, so that no outer header may forbid it.
func (sa *Outbound) PathFragments() bool { return sa.path.Load()&fragmentsOnPath != 0 }

// SetPathMTU makes mtu, 68 to 65535 bytes, the path's; fragments is what
// PathFragments says from then on. The slow path alone calls it.
func (sa *Outbound) SetPathMTU(mtu int, fragments bool) {
	v := uint32(mtu)
	if fragments {
		v |= fragmentsOnPath
	}
	sa.path.Store(v)
}

// ForgetPathMTU makes the path one of which nothing is known. The slow path
// alone calls it.
func (sa *Outbound) ForgetPathMTU() { sa.path.Store(pathUnknown) }

// PathKnown says whether SetPathMTU has been called since ForgetPathMTU.
func (sa *Outbound) PathKnown() bool { return sa.path.Load() != pathUnknown }
