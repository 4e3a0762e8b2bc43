package control

import "time"

// The operators' API: what GET answers, as JSON, on the gateway's Unix socket.
// Fields are only ever added. Keys never appear.
const (
	PathPorts   = "/v1/ports"   // []PortInfo, one a queue
	PathWorkers = "/v1/workers" // []WorkerInfo
	PathSAs     = "/v1/sa"      // []SAInfo
	PathPolicy  = "/v1/policy"  // []PolicyInfo, in the order in which they are tried
	PathDrops   = "/v1/drops"   // []DropInfo
	PathRoutes  = "/v1/routes"  // []RouteInfo
	PathAudit   = "/v1/audit"   // []AuditInfo, the latest that there were, the oldest first
	PathStatus  = "/v1/status"  // StatusInfo
)

// PortInfo is one queue of a port.
type PortInfo struct {
	Name      string    `json:"name"`
	Side      string    `json:"side"` // SideProtected or SideWire
	Driver    string    `json:"driver"`
	Mode      string    `json:"mode"`
	Queue     int       `json:"queue"`
	MAC       string    `json:"mac"`
	Hugepages bool      `json:"hugepages"`
	Longest   int       `json:"longest_frame"`      // bytes that it receives at most, without FCS
	NoJumbo   string    `json:"no_jumbo,omitempty"` // why it carries no jumbo frames where workers have some
	Up        bool      `json:"up"`
	Carrier   bool      `json:"carrier"`
	MTU       int       `json:"mtu"` // 0 when there is no such interface
	Addrs     []string  `json:"addrs"`
	Trouble   string    `json:"trouble,omitempty"` // what is wrong with its steering program
	Stats     PortStats `json:"stats"`
}

// PortStats counts what a queue did since it was opened; see pmd.Stats.
type PortStats struct {
	RxPackets uint64 `json:"rx_packets"`
	RxBytes   uint64 `json:"rx_bytes"`
	TxPackets uint64 `json:"tx_packets"`
	TxBytes   uint64 `json:"tx_bytes"`
	TxDone    uint64 `json:"tx_done"`
	TxErrors  uint64 `json:"tx_errors"`
	Kicks     uint64 `json:"kicks"`
	RxDropped uint64 `json:"rx_dropped"`
	FillEmpty uint64 `json:"fill_empty"`
	BadDesc   uint64 `json:"bad_desc"`

	RxJumbo    uint64 `json:"rx_jumbo"`
	RxGiant    uint64 `json:"rx_giant"`
	JumboEmpty uint64 `json:"jumbo_empty"`
}

// AuditInfo is a packet that was dropped for a reason that may mean an attack, or
// a peer gone wrong (RFC 4301, section 5.2; RFC 4303, section 4). Not every such
// packet is one: they are limited, and drops count all.
type AuditInfo struct {
	Number    uint64    `json:"number"` // counts up from 1
	Time      time.Time `json:"time"`
	Reason    string    `json:"reason"`
	SPI       uint32    `json:"spi"` // 0: none that could be seen
	Seq       uint64    `json:"seq"` // of the packet
	Src       string    `json:"src"` // of the SA; without one, of the packet
	Dst       string    `json:"dst"`
	Flow      string    `json:"flow"` // the innermost packet that could be seen
	FlowLabel uint32    `json:"flow_label,omitempty"`
	Unseen    uint64    `json:"unseen,omitempty"` // that were not taken down since the last
}

// WorkerInfo is what a worker has counted; see counter.Values.
type WorkerInfo struct {
	Core      int               `json:"core"`
	Crypto    string            `json:"crypto"` // the tier of kernels that the algorithms use
	Turns     uint64            `json:"turns"`
	Busy      uint64            `json:"busy"`
	Sleeps    uint64            `json:"sleeps"`
	Rx        uint64            `json:"rx"`
	RxBytes   uint64            `json:"rx_bytes"`
	Injected  uint64            `json:"injected"`
	Tx        uint64            `json:"tx"`
	TxBytes   uint64            `json:"tx_bytes"`
	Punted    uint64            `json:"punted"`
	Cut       uint64            `json:"cut"`       // packets cut up to fit the path
	Fragments uint64            `json:"fragments"` // what they were cut into
	Joined    uint64            `json:"joined"`    // fragments that were put together with the last of their datagram
	Waiting   uint64            `json:"waiting"`   // fragments that wait for the rest now
	Acquires  uint64            `json:"acquires"`
	LostMsgs  uint64            `json:"lost_msgs"`
	Dropped   uint64            `json:"dropped"`
	Drops     map[string]uint64 `json:"drops"`    // by reason; those that happened
	Balanced  bool              `json:"balanced"` // rx + injected + fragments = tx + punted + cut + joined + waiting + dropped
	Stages    []StageInfo       `json:"stages"`
}

// StageInfo is the cost of one stage in the turns that were sampled.
type StageInfo struct {
	Stage           string  `json:"stage"`
	Cycles          uint64  `json:"cycles"` // of the TSC
	Packets         uint64  `json:"packets"`
	CyclesPerPacket float64 `json:"cycles_per_packet"` // 0 without packets
}

// The values of SAInfo.Direction and PolicyInfo.Dir.
const (
	DirIn      = "in"
	DirOut     = "out"
	DirWaiting = "waiting" // the host has neither of the SA's addresses
	DirLarval  = "larval"  // a key daemon has reserved the SPI
)

// SAInfo is one security association.
type SAInfo struct {
	Direction  string   `json:"direction"`
	SPI        uint32   `json:"spi"`
	Src        string   `json:"src"`
	Dst        string   `json:"dst"`
	Proto      string   `json:"proto"` // "esp" or "ah"
	Mode       string   `json:"mode"`  // "tunnel" or "transport"
	Suite      string   `json:"suite"`
	Reqid      uint32   `json:"reqid"`
	ESN        bool     `json:"esn"`
	Seq        uint64   `json:"seq"`    // last number sent, or highest accepted
	Window     int      `json:"window"` // replay window in packets; inbound, 0: no check
	Packets    uint64   `json:"packets"`
	Bytes      uint64   `json:"bytes"`
	AgeSeconds float64  `json:"age_seconds"` // since it was made usable
	Soft       Lifetime `json:"soft"`
	Hard       Lifetime `json:"hard"`
	Policies   []uint32 `json:"policies"`           // outbound: bound to it
	PathMTU    int      `json:"path_mtu,omitempty"` // outbound: the largest outer packet that its path carries, as ICMP told; 0: not known
	Lookup     string   `json:"lookup,omitempty"`   // "src" or "spi": what names the SA, if not SPI and destination
	Outer      string   `json:"outer,omitempty"`    // what is said of the outer header, in the words of ipsec.conf
	CPU        *int     `json:"cpu,omitempty"`      // outbound: the worker that alone uses it; null: all do
	ForDSCP    []int    `json:"for_dscp,omitempty"` // outbound: the codepoints of the packets that it is for; none: all
	Name       string   `json:"name"`
}

// Lifetime bounds an SA's use; a zero field sets no bound.
type Lifetime struct {
	Packets    uint64 `json:"packets,omitempty"`
	Bytes      uint64 `json:"bytes,omitempty"`
	Seconds    uint64 `json:"seconds,omitempty"`
	UseSeconds uint64 `json:"use_seconds,omitempty"`
}

// PolicyInfo is one SPD entry.
type PolicyInfo struct {
	ID        uint32         `json:"id"`
	Dir       string         `json:"dir"`
	Priority  uint32         `json:"priority"`
	Src       string         `json:"src"` // a prefix, or "low-high"
	Dst       string         `json:"dst"`
	Proto     string         `json:"proto"`    // "any", or the number
	SrcPort   string         `json:"src_port"` // "any", "opaque", "n" or "low-high"
	DstPort   string         `json:"dst_port"`
	Action    string         `json:"action"`               // "discard", "bypass" or "protect"
	Level     string         `json:"level,omitempty"`      // of protect: "require", "acquire", "use" or "dontacq"
	Template  *TemplateInfo  `json:"template,omitempty"`   // of protect; of a bundle, the innermost
	Outer     []TemplateInfo `json:"outer,omitempty"`      // of a bundle, what goes around it, the inner first
	PFP       []string       `json:"pfp,omitempty"`        // what each flow's SA has of its own: "src", "dst", "proto", "ports"
	BoundSPI  uint32         `json:"bound_spi"`            // outbound protect: the SA in use; 0: none, or one for each flow
	OuterSPIs []uint32       `json:"outer_spis,omitempty"` // of a bundle, beside BoundSPI, in the order of Outer
	DSCPSPIs  []uint32       `json:"dscp_spis,omitempty"`  // the SAs in use that are for some codepoints, which come before BoundSPI
	Static    bool           `json:"static"`               // from the configuration
	Name      string         `json:"name"`
}

// TemplateInfo names the SA that a policy wants.
type TemplateInfo struct {
	Proto string `json:"proto"`
	Mode  string `json:"mode"`
	Src   string `json:"src"` // "any", or an address
	Dst   string `json:"dst"`
	Reqid uint32 `json:"reqid"` // 0: any
}

// DropInfo is one reason to drop, whether it happened or not.
type DropInfo struct {
	Reason  string   `json:"reason"`
	Text    string   `json:"text"`
	Workers []uint64 `json:"workers"` // by worker, in the order of PathWorkers
	Total   uint64   `json:"total"`
}

// RouteInfo is one entry of the forwarding table: a route, a neighbour, or an
// address of the host.
type RouteInfo struct {
	Dst   string `json:"dst"`
	State string `json:"state"`          // see fib.State
	Via   string `json:"via,omitempty"`  // the next hop; "": Dst is on the link, or goes nowhere
	Port  string `json:"port,omitempty"` // "": goes out of no port of the gateway
	MTU   int    `json:"mtu,omitempty"`
	MAC   string `json:"mac,omitempty"` // the neighbour's, if it is known
}

// StatusInfo is what the slow path itself did.
type StatusInfo struct {
	UptimeSeconds float64 `json:"uptime_seconds"`
	Mirrored      bool    `json:"mirrored"` // the kernel's network is known
	Neighbours    int     `json:"neighbours"`
	Local         int     `json:"local"`       // addresses of the host
	WaitingSAs    int     `json:"waiting_sas"` // see DirWaiting
	Stats         Stats   `json:"stats"`
}

// Stats counts what the slow path did since it was made.
type Stats struct {
	Acquires     uint64 `json:"acquires"`       // requests of workers
	AcquiresSent uint64 `json:"acquires_sent"`  // passed on; the rest repeated one of these, or came too late
	AcquiresLost uint64 `json:"acquires_lost"`  // too many at once
	Resolves     uint64 `json:"resolves"`       // neighbours asked for
	ICMPSent     uint64 `json:"icmp_sent"`      // errors handed to a worker
	ICMPLimited  uint64 `json:"icmp_limited"`   // held back by the rate limit
	ICMPRefused  uint64 `json:"icmp_refused"`   // about what must not be answered, or with no address to answer from
	Keepalives   uint64 `json:"nat_keepalives"` // NAT-keepalives sent
	Dummies      uint64 `json:"dummies"`        // dummy packets handed to a worker
	ICMPLost     uint64 `json:"icmp_lost"`      // the worker's ring was full
	PathsLowered uint64 `json:"paths_lowered"`  // ICMP errors that lowered an SA's path MTU
	PathsRefused uint64 `json:"paths_refused"`  // about no SA of the gateway, implausible, or malformed
	PathsRaised  uint64 `json:"paths_raised"`   // path MTUs forgotten, to try a larger one
	SoftExpired  uint64 `json:"soft_expired"`
	HardExpired  uint64 `json:"hard_expired"`
}
