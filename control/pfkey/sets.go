package pfkey

// Groups of extensions that come together.
const (
	lifetimes Set = 1<<ExtCurrent | 1<<ExtHard | 1<<ExtSoft
	addresses Set = 1<<ExtSrc | 1<<ExtDst
	keys      Set = 1<<ExtAuthKey | 1<<ExtEncKey
	idents    Set = 1<<ExtSrcIdentity | 1<<ExtDstIdentity
	encap     Set = 1<<ExtNATType | 1<<ExtNATSrcPort | 1<<ExtNATDstPort | 1<<ExtNATOA

	wholeSA = 1<<ExtSA | 1<<ExtSA2 | addresses | 1<<ExtProxy | lifetimes | keys | idents | encap |
		1<<ExtSensitivity | 1<<ExtSAReplay | 1<<ExtSecCtx | 1<<ExtKMPrivate
	wholePolicy = addresses | lifetimes | 1<<ExtPolicy | 1<<ExtSecCtx | 1<<ExtSA2
)

// allowed says, by message type, which extensions a client may send. KAME's
// library and OpenBSD's daemon send more than RFC 2367 lists; what is here and
// without meaning is not looked at.
var allowed = [maxType + 1]Set{
	GetSPI:     addresses | 1<<ExtProxy | 1<<ExtSPIRange | 1<<ExtSA2 | lifetimes,
	Update:     wholeSA,
	Add:        wholeSA,
	Delete:     1<<ExtSA | addresses | 1<<ExtSA2 | encap,
	Get:        1<<ExtSA | addresses | 1<<ExtSA2 | encap,
	Acquire:    addresses | 1<<ExtProxy | idents | 1<<ExtSensitivity | 1<<ExtProposal | 1<<ExtPolicy | 1<<ExtSA2,
	Register:   1 << ExtKMPrivate,
	Flush:      0,
	Dump:       1 << ExtFilter,
	Promisc:    0,
	SPDUpdate:  wholePolicy,
	SPDAdd:     wholePolicy,
	SPDDelete:  wholePolicy,
	SPDGet:     wholePolicy,
	SPDDump:    0,
	SPDFlush:   0,
	SPDSetIdx:  wholePolicy,
	SPDDelete2: wholePolicy,
}

// required says, by message type, which extensions a client must send.
var required = [maxType + 1]Set{
	GetSPI:     addresses,
	Update:     1<<ExtSA | addresses,
	Add:        1<<ExtSA | addresses,
	Delete:     1<<ExtSA | addresses,
	Get:        1<<ExtSA | addresses,
	SPDUpdate:  addresses | 1<<ExtPolicy,
	SPDAdd:     addresses | 1<<ExtPolicy,
	SPDDelete:  addresses | 1<<ExtPolicy,
	SPDGet:     1 << ExtPolicy,
	SPDSetIdx:  addresses | 1<<ExtPolicy,
	SPDDelete2: 1 << ExtPolicy,
}

// minLen is the length in bytes of the fixed part of each extension.
var minLen = [maxExt + 1]int{
	ExtSA: 16, ExtCurrent: 32, ExtHard: 32, ExtSoft: 32, ExtSrc: 8, ExtDst: 8, ExtProxy: 8,
	ExtAuthKey: 8, ExtEncKey: 8, ExtSrcIdentity: 16, ExtDstIdentity: 16, ExtSensitivity: 16,
	ExtProposal: 8, ExtSupportedAuth: 8, ExtSupportedEnc: 8, ExtSPIRange: 16, ExtKMPrivate: 8,
	ExtPolicy: 16, ExtSA2: 16, ExtNATType: 8, ExtNATSrcPort: 8, ExtNATDstPort: 8, ExtNATOA: 8,
	ExtSecCtx: 8, ExtKMAddress: 8, ExtFilter: 8, // SA_REPLAY is 8, FILTER 40
}

// opaque are the extensions whose bodies Spigot neither reads nor sends.
const opaque Set = 1<<ExtSensitivity | 1<<ExtKMPrivate | 1<<ExtSecCtx | 1<<ExtKMAddress

// check says whether m's extensions are those that a client may send.
func (m *Message) check() error {
	if extra := m.Has &^ allowed[m.Type]; extra != 0 {
		return errorf(errInvalid, "%v with extensions that it must not have: %v", m.Type, extra)
	}
	if missing := required[m.Type] &^ m.Has; missing != 0 {
		return errorf(errInvalid, "%v without extensions that it must have: %v", m.Type, missing)
	}
	if m.Has&addresses == addresses && m.Src.Addr.Is4() != m.Dst.Addr.Is4() {
		return errorf(errInvalid, "%v from %v to %v: one family, please", m.Type, m.Src.Addr, m.Dst.Addr)
	}
	return nil
}
