package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/token"

	"spigot/pipeline"
	"spigot/pmd"
)

// Config is a checked configuration: a passive value that says what to run.
// assemble makes it live.
type Config struct {
	Ports           []PortConfig
	Cores           []int // worker i runs on core Cores[i]
	ControlCore     int   // core of everything but the workers, or anyCore
	Socket          string
	PFKey           string // path of the socket of PF_KEY clients; "": there is none
	XFRM            string // the same of netlink XFRM
	NATKeepalive    time.Duration
	PathMTULife     time.Duration
	Metrics         string // TCP address of the metrics; "": on Socket only
	Enc             string // the host's device, as in enc0; "": the host's packets go around IPsec
	Idle            pipeline.Idle
	Frames          int       // frames a worker
	FrameSize       int       // bytes
	Jumbo           pmd.Jumbo // jumbo frames a worker; none: packets beyond FrameSize are dropped
	Burst           int       // frames a turn takes from a queue
	IPsecConf       string
	AllowManualAEAD bool
	AllowLegacy     bool
	LogFormat       string // "text" or "json"
	LogLevel        slog.Level
	Faults          Faults
}

// PortConfig is one interface of the gateway.
type PortConfig struct {
	Name    string
	Side    pipeline.Side
	Driver  string  // "afxdp" or "asavie"
	Mode    string  // "auto", "zerocopy", "copy" or "generic"
	Queues  [][]int // by worker: the queues that it owns, at least one
	Capture string  // path of a pcap file, or ""
}

// Faults is a test knob: the probabilities, 0 to 1, with which frames meet a
// fault at every port, as fault.Options defines them. The zero Faults is none.
type Faults struct {
	Seed        uint64  `yaml:"seed"`
	RxLose      float64 `yaml:"rx_lose"`
	RxCorrupt   float64 `yaml:"rx_corrupt"`
	RxTruncate  float64 `yaml:"rx_truncate"`
	RxDuplicate float64 `yaml:"rx_duplicate"`
	RxReorder   float64 `yaml:"rx_reorder"`
	TxShort     float64 `yaml:"tx_short"`
	TxLose      float64 `yaml:"tx_lose"`
}

// anyCore as a ControlCore says: every core that no worker runs on.
const anyCore = -1

// The document is the configuration file as it is written.
type document struct {
	Ports   []portDoc  `yaml:"ports"`
	Workers workersDoc `yaml:"workers"`
	Control controlDoc `yaml:"control"`
	Host    hostDoc    `yaml:"host"`
	Idle    idleDoc    `yaml:"idle"`
	Memory  memoryDoc  `yaml:"memory"`
	Burst   int        `yaml:"burst"`
	IPsec   string     `yaml:"ipsec"`
	Manual  bool       `yaml:"allow_manual_aead"`
	Legacy  bool       `yaml:"allow_legacy"`
	Log     logDoc     `yaml:"log"`
	Faults  Faults     `yaml:"faults"`
}

type portDoc struct {
	Name    string `yaml:"name"`
	Side    string `yaml:"side"`
	Queues  []int  `yaml:"queues"`
	Driver  string `yaml:"driver"`
	Mode    string `yaml:"mode"`
	Capture string `yaml:"capture"`
}

type workersDoc struct {
	Cores []int `yaml:"cores"`
}

type controlDoc struct {
	Core         *int    `yaml:"core"`
	Socket       string  `yaml:"socket"`
	PFKey        *string `yaml:"pfkey"`
	XFRM         *string `yaml:"xfrm"`
	NATKeepalive int     `yaml:"nat_keepalive"`
	PathMTULife  int     `yaml:"path_mtu_life"`
	Metrics      string  `yaml:"metrics"`
}

type hostDoc struct {
	Enc string `yaml:"enc"`
}

type idleDoc struct {
	Policy string `yaml:"policy"`
	Turns  int    `yaml:"turns"`
}

type memoryDoc struct {
	Frames    int  `yaml:"frames"`
	FrameSize int  `yaml:"frame_size"`
	Jumbo     *int `yaml:"jumbo_frames"` // nil: as the ports' MTU asks
}

type logDoc struct {
	Format string `yaml:"format"`
	Level  string `yaml:"level"`
}

// defaults is the document where nothing is written.
func defaults() document {
	return document{
		Control: controlDoc{Socket: "/run/spigot/control.sock", NATKeepalive: 20, PathMTULife: 600},
		Idle:    idleDoc{Policy: "spin", Turns: 1000},
		Memory:  memoryDoc{FrameSize: 2048},
		Burst:   pipeline.MaxBurst,
		Log:     logDoc{Format: "text", Level: "info"},
	}
}

// loadConfig reads the configuration file, where one is named, lays the flags
// over it and checks the result against m. The error holds one line for each
// problem, with its place.
func loadConfig(fl *flags, m *machine) (*Config, error) {
	doc, at, err := readDocument(fl.config)
	if err != nil {
		return nil, err
	}
	fl.apply(&doc, at)
	return check(&doc, fl.queues, at, m)
}

// readDocument returns the document at path over the defaults, and where its
// parts stand. An empty path is an empty document.
func readDocument(path string) (document, *places, error) {
	doc, at := defaults(), &places{file: path}
	if path == "" {
		return doc, at, nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return doc, at, fmt.Errorf("configuration: %w", err)
	}
	if err := at.parse(text); err != nil {
		return doc, at, placed(path, err)
	}
	if at.empty() {
		return doc, at, nil // where the decoder would clear the defaults
	}
	if err := yaml.UnmarshalWithOptions(text, &doc, yaml.Strict()); err != nil {
		return doc, at, placed(path, err)
	}
	doc.IPsec = besideOf(path, doc.IPsec)
	for i := range doc.Ports {
		doc.Ports[i].Capture = besideOf(path, doc.Ports[i].Capture)
	}
	return doc, at, nil
}

// besideOf resolves name, as written in the file at path, relative to that file.
func besideOf(path, name string) string {
	if name == "" || filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(filepath.Dir(path), name)
}

// placed writes a YAML error on one line, as "file:line:column: message".
func placed(path string, err error) error {
	var at interface {
		GetToken() *token.Token
		GetMessage() string
	}
	if !errors.As(err, &at) || at.GetToken() == nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	message := at.GetMessage()
	var wrong *yaml.TypeError
	if errors.As(err, &wrong) {
		message = fmt.Sprintf("%q stands where %s is wanted", at.GetToken().Value, kindOf(wrong.DstType))
	}
	pos := at.GetToken().Position
	return fmt.Errorf("%s:%d:%d: %s", path, pos.Line, pos.Column, message)
}
