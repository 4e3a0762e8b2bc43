package control

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"spigot/crypto"
	"spigot/internal/counter"
	"spigot/pmd"
	"spigot/spd"
)

// PathMetrics is where the gateway's counters are in Prometheus's text format.
const PathMetrics = "/metrics"

// ServeMetrics answers PathMetrics, and nothing else, on ln until ctx ends, and
// returns nil then. It closes ln.
func (c *Controller) ServeMetrics(ctx context.Context, ln net.Listener) error {
	mux := http.NewServeMux()
	mux.Handle("GET "+PathMetrics, c.metrics())
	return c.serveHTTP(ctx, ln, mux, "metrics")
}

// metrics makes the handler of PathMetrics. It keeps nothing between requests.
func (c *Controller) metrics() http.Handler {
	r := prometheus.NewRegistry()
	r.MustRegister(&collector{c: c}) // a new registry has nothing that it could clash with
	return promhttp.HandlerFor(r, promhttp.HandlerOpts{MaxRequestsInFlight: maxClients, ErrorLog: metricsLog{c}})
}

// metricsLog has the handler's errors logged as the controller's are.
type metricsLog struct{ c *Controller }

// Println logs an error.
func (l metricsLog) Println(v ...any) { l.c.log.Debug("answer a client", "err", fmt.Sprint(v...)) }

// A family is a metric with its labels; get reads one value of a V.
type family[V any] struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	get  func(*V) uint64
}

func count[V any](name, help string, labels []string, get func(*V) uint64) family[V] {
	return family[V]{prometheus.NewDesc("spigot_"+name+"_total", help, labels, nil), prometheus.CounterValue, get}
}

// gauge is count for what goes up and down.
func gauge[V any](name, help string, labels []string, get func(*V) uint64) family[V] {
	return family[V]{prometheus.NewDesc("spigot_"+name, help, labels, nil), prometheus.GaugeValue, get}
}

var (
	byWorker = []string{"worker", "core"}
	byQueue  = []string{"port", "side", "queue"}
)

// workerFamilies are a worker's counters, but for those by reason and stage.
var workerFamilies = []family[counter.Values]{
	count("turns", "Turns of the worker's loop.", byWorker, func(v *counter.Values) uint64 { return v.Turns }),
	count("busy_turns", "Turns that carried a frame.", byWorker, func(v *counter.Values) uint64 { return v.Busy }),
	count("sleeps", "Times the worker slept.", byWorker, func(v *counter.Values) uint64 { return v.Sleeps }),
	count("rx_packets", "Frames received.", byWorker, func(v *counter.Values) uint64 { return v.Rx }),
	count("rx_bytes", "Bytes received.", byWorker, func(v *counter.Values) uint64 { return v.RxBytes }),
	count("injected_packets", "Packets handed in by the slow path.", byWorker,
		func(v *counter.Values) uint64 { return v.Injected }),
	count("tx_packets", "Frames sent.", byWorker, func(v *counter.Values) uint64 { return v.Tx }),
	count("tx_bytes", "Bytes sent.", byWorker, func(v *counter.Values) uint64 { return v.TxBytes }),
	count("punted_packets", "Packets handed to the slow path or the host.", byWorker,
		func(v *counter.Values) uint64 { return v.Punted }),
	count("cut_packets", "Packets cut up to fit the path.", byWorker, func(v *counter.Values) uint64 { return v.Cut }),
	count("fragments", "What they were cut into.", byWorker, func(v *counter.Values) uint64 { return v.Fragments }),
	count("joined_fragments", "Fragments put together with the last of their datagram.", byWorker,
		func(v *counter.Values) uint64 { return v.Joined }),
	gauge("waiting_fragments", "Fragments that wait for the rest of their datagram.", byWorker,
		func(v *counter.Values) uint64 { return v.Waiting }),
	count("acquires", "Requests for SAs.", byWorker, func(v *counter.Values) uint64 { return v.Acquires }),
	count("lost_messages", "Messages to the slow path that found its ring full.", byWorker,
		func(v *counter.Values) uint64 { return v.LostMsgs }),
}

// queueFamilies are the counters of a port's queue.
var queueFamilies = []family[pmd.Stats]{
	count("port_rx_packets", "Frames that the queue received.", byQueue, func(s *pmd.Stats) uint64 { return s.RxPackets }),
	count("port_rx_bytes", "Bytes that the queue received.", byQueue, func(s *pmd.Stats) uint64 { return s.RxBytes }),
	count("port_tx_packets", "Frames that the queue took to send.", byQueue, func(s *pmd.Stats) uint64 { return s.TxPackets }),
	count("port_tx_bytes", "Bytes that the queue took to send.", byQueue, func(s *pmd.Stats) uint64 { return s.TxBytes }),
	count("port_tx_done", "Frames that the kernel gave back sent.", byQueue, func(s *pmd.Stats) uint64 { return s.TxDone }),
	count("port_tx_errors", "Times the kernel refused to send.", byQueue, func(s *pmd.Stats) uint64 { return s.TxErrors }),
	count("port_kicks", "System calls that made the kernel send.", byQueue, func(s *pmd.Stats) uint64 { return s.Kicks }),
	count("port_rx_dropped", "Frames that the kernel dropped before the gateway.", byQueue,
		func(s *pmd.Stats) uint64 { return s.RxDropped }),
	count("port_fill_empty", "Times the kernel found no frame to fill.", byQueue,
		func(s *pmd.Stats) uint64 { return s.FillEmpty }),
	count("port_rx_jumbo", "Frames received in several buffers, each put into a jumbo frame.", byQueue,
		func(s *pmd.Stats) uint64 { return s.RxJumbo }),
	count("port_rx_giant", "Frames in several buffers that fitted no frame, or ended wrong.", byQueue,
		func(s *pmd.Stats) uint64 { return s.RxGiant }),
	count("port_jumbo_empty", "Frames in several buffers that found no jumbo frame free.", byQueue,
		func(s *pmd.Stats) uint64 { return s.JumboEmpty }),
	count("port_bad_desc", "Descriptors that were refused.", byQueue, func(s *pmd.Stats) uint64 { return s.BadDesc }),
}

// slowFamilies are the slow path's own counters.
var slowFamilies = []family[Stats]{
	count("acquires_sent", "Requests for SAs passed on to key daemons.", nil, func(s *Stats) uint64 { return s.AcquiresSent }),
	count("acquires_lost", "Requests for SAs that were too many at once.", nil,
		func(s *Stats) uint64 { return s.AcquiresLost }),
	count("neighbour_requests", "Neighbours asked for.", nil, func(s *Stats) uint64 { return s.Resolves }),
	count("icmp_sent", "ICMP errors sent.", nil, func(s *Stats) uint64 { return s.ICMPSent }),
	count("icmp_limited", "ICMP errors held back by the rate limit.", nil, func(s *Stats) uint64 { return s.ICMPLimited }),
	count("nat_keepalives", "NAT-keepalives sent.", nil, func(s *Stats) uint64 { return s.Keepalives }),
	count("dummies", "Dummy packets sent under idle SAs.", nil, func(s *Stats) uint64 { return s.Dummies }),
	count("path_mtu_lowered", "Path MTUs of SAs that ICMP has lowered.", nil, func(s *Stats) uint64 { return s.PathsLowered }),
	count("sa_soft_expired", "Soft lifetimes of SAs that ended.", nil, func(s *Stats) uint64 { return s.SoftExpired }),
	count("sa_hard_expired", "Hard lifetimes of SAs that ended.", nil, func(s *Stats) uint64 { return s.HardExpired }),
}

var (
	dropsDesc = prometheus.NewDesc("spigot_drops_total", "Packets dropped, by reason.", append(byWorker, "reason"), nil)
	cycleDesc = prometheus.NewDesc("spigot_stage_cycles_total", "TSC cycles of the turns that were sampled.",
		append(byWorker, "stage"), nil)
	stageDesc = prometheus.NewDesc("spigot_stage_packets_total", "Packets of the turns that were sampled.",
		append(byWorker, "stage"), nil)
	sasDesc      = prometheus.NewDesc("spigot_sas", "Security associations.", []string{"direction", "suite"}, nil)
	policiesDesc = prometheus.NewDesc("spigot_policies", "Policies.", []string{"direction", "action"}, nil)
	cryptoDesc   = prometheus.NewDesc("spigot_crypto_info", "The tier of kernels that the algorithms use.", []string{"tier"}, nil)
)

// collector reads the counters anew for each request, and for one at a time:
// whoever asks without a pause must not keep the slow path from its work.
type collector struct {
	c  *Controller
	mu sync.Mutex
}

// Describe tells nothing: what there is depends on the configuration.
func (*collector) Describe(chan<- *prometheus.Desc) {}

// Collect sends all metrics.
func (k *collector) Collect(out chan<- prometheus.Metric) {
	all := k.gather()
	for _, m := range all {
		out <- m
	}
}

// gathered is metrics on their way out.
type gathered []prometheus.Metric

func (g *gathered) add(desc *prometheus.Desc, kind prometheus.ValueType, n uint64, labels ...string) {
	*g = append(*g, prometheus.MustNewConstMetric(desc, kind, float64(n), labels...)) // labels are as many as desc has
}

// gather reads everything. What is the slow path's it reads in its thread.
func (k *collector) gather() (g gathered) {
	k.mu.Lock()
	defer k.mu.Unlock()
	tier, _ := crypto.ChosenTier() // without one the program has ended
	g.add(cryptoDesc, prometheus.GaugeValue, 1, tier.String())
	for i, w := range k.c.cfg.Workers {
		g.worker(w.Counters.Load(), strconv.Itoa(i), strconv.Itoa(w.Core))
	}
	for _, p := range k.c.cfg.Ports {
		name := strings.ToValidUTF8(p.Name, "\ufffd") // Prometheus panics over other names
		for _, q := range p.Queues {
			s := q.Stats()
			for _, f := range queueFamilies {
				g.add(f.desc, f.kind, f.get(&s), name, p.Side, strconv.Itoa(q.Info().Queue))
			}
		}
	}
	k.c.Do(func() { g.tables(k.c) })
	return g
}

func (g *gathered) worker(v counter.Values, labels ...string) {
	for _, f := range workerFamilies {
		g.add(f.desc, f.kind, f.get(&v), labels...)
	}
	for r := counter.None + 1; r < counter.NumReasons; r++ {
		g.add(dropsDesc, prometheus.CounterValue, v.Drops[r], append(labels, r.String())...)
	}
	for s := range counter.NumStages {
		g.add(cycleDesc, prometheus.CounterValue, v.Cycles[s], append(labels, s.String())...)
		g.add(stageDesc, prometheus.CounterValue, v.Packets[s], append(labels, s.String())...)
	}
}

// tables counts SAs and policies.
func (g *gathered) tables(c *Controller) {
	sas := map[[2]string]uint64{}
	for r := range c.sas.all {
		kind := [2]string{DirWaiting, ""}
		switch {
		case r.larval:
			kind[0] = DirLarval
		case r.in != nil:
			kind = [2]string{DirIn, r.in.Suite}
		case r.out != nil:
			kind = [2]string{DirOut, r.out.Suite}
		}
		sas[kind]++
	}
	sas[[2]string{DirWaiting, ""}] += uint64(len(c.pending))
	for kind, n := range sas {
		g.add(sasDesc, prometheus.GaugeValue, n, kind[0], kind[1])
	}
	policies := map[[2]string]uint64{}
	for _, t := range []*spd.Table{c.spds.tables.Out, c.spds.tables.In} {
		for _, p := range t.Policies() {
			policies[[2]string{dirNames[p.Dir], actionNames[p.Action]}]++
		}
	}
	for kind, n := range policies {
		g.add(policiesDesc, prometheus.GaugeValue, n, kind[0], kind[1])
	}
	for _, f := range slowFamilies {
		g.add(f.desc, f.kind, f.get(&c.stats))
	}
}
