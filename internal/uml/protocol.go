package uml

// Request is what an agent is asked for, one line of JSON. Exactly one field
// is set, beside Seq.
type Request struct {
	Seq   int      `json:"seq"`             // Agent.Call's
	Exec  []string `json:"exec,omitempty"`  // run a program; Stdin is its input
	Stdin string   `json:"stdin,omitempty"` // of Exec
	Read  string   `json:"read,omitempty"`  // a file's text, as of /proc
	Probe *Probe   `json:"probe,omitempty"`
	Send  *Send    `json:"send,omitempty"`
	Cross *Cross   `json:"cross,omitempty"`
	Join  *Join    `json:"join,omitempty"`
	Cast  *Cast    `json:"cast,omitempty"`
	Heard *Heard   `json:"heard,omitempty"`
}

// Answer is what an agent says to a Request, one line of JSON.
type Answer struct {
	Seq    int    `json:"seq"`              // of the request; 0: the agent is ready
	Output string `json:"output,omitempty"` // of Exec, both streams; of Read
	Report Report `json:"report,omitzero"`  // of Probe, Send and Heard
	Error  string `json:"error,omitempty"`  // why it could not be done
}

// Probe asks for a datagram of each size, all of which have to come back as they
// were sent: UDP's from the peer's agent, the others from the peer's kernel.
type Probe struct {
	From string `json:"from"` // the address to send from
	To   string `json:"to"`
	UDP  []int  `json:"udp"`  // bytes of payload, without the 8 of the header
	Echo []int  `json:"echo"` // the same of ICMP echo requests
	// Seconds is how long the last answer may be waited for.
	Seconds int `json:"seconds"`
}

// Send asks for bytes by TCP, which the peer's agent counts and hashes.
type Send struct {
	From    string `json:"from"`
	To      string `json:"to"`
	Bytes   int64  `json:"bytes"`
	Seconds int    `json:"seconds"` // the bound of the whole transfer
}

// Cross asks to carry frames between two interfaces from then on, badly.
type Cross struct {
	Ports [2]string `json:"ports"`
	// How many frames of a thousand get lost, and how many are overtaken by some
	// of those behind them.
	Lose, Overtaken int
	Seed            uint64 `json:"seed"`
}

// Join asks to be a member of a multicast group from then on, and to keep what
// comes from its members.
type Join struct {
	Group string `json:"group"`
	Dev   string `json:"dev"`
}

// Cast asks to send the members of a group a datagram of each size, of 8 bytes or
// more.
type Cast struct {
	From string `json:"from"` // the address to send from
	To   string `json:"to"`   // the group
	Dev  string `json:"dev"`
	UDP  []int  `json:"udp"` // bytes of payload
}

// Heard asks what came to a group: the datagrams of the Casts that went there since
// the last time, once each and no other.
type Heard struct {
	Group string `json:"group"`
	UDP   []int  `json:"udp"`  // what was cast
	From  int    `json:"from"` // how many have cast it
	// Seconds is how long the last datagram may be waited for.
	Seconds int `json:"seconds"`
}

// Report is what became of a Probe, of a Send, or of Casts.
type Report struct {
	Sent     int64    `json:"sent"`     // packets; of Send: bytes
	Intact   int64    `json:"intact"`   // of those, came back, or arrived, as they were sent
	Trouble  []string `json:"trouble"`  // the others, one by one
	Duration float64  `json:"duration"` // seconds
	Stall    float64  `json:"stall"`    // of Send: the longest time without progress, in seconds
}

// The ports that an agent answers at.
const (
	EchoPort = 7 // UDP: sends back what comes
	SinkPort = 9 // TCP: counts and hashes a stream, and tells its end
	CastPort = 5 // UDP: keeps what comes to a group
)

// GuestEnv is a variable in an agent's environment that says that it is a
// guest's first process.
const GuestEnv = "SPIGOT_GUEST"
