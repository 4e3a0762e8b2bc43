package control

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"reflect"
	"strings"
	"testing"

	"spigot/crypto"
	"spigot/internal/counter"
	"spigot/pmd"
)

// scrape asks for the metrics, by line without its value.
func scrape(t *testing.T, client *http.Client, url string) (lines map[string]string) {
	t.Helper()
	resp, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK || !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/plain") {
		t.Fatalf("%s: %s, %v", url, resp.Status, err)
	}
	lines = map[string]string{}
	for line := range strings.Lines(string(body)) {
		if at := strings.LastIndexByte(line, ' '); line[0] != '#' {
			lines[line[:at]] = strings.TrimSpace(line[at:])
		}
	}
	return lines
}

func TestMetrics(t *testing.T) {
	g := newGateway(t, func(c *Config) { c.Ports[0].Queues = []pmd.Port{queue{}} })
	g.see()
	g.load(t, protect("10.2.0.0/16"), sa(300, here, peer), sa(301, peer, here), sa(302, "203.0.113.1", "203.0.113.2"))
	w := g.worker.Counters
	w.Rx, w.Drops[counter.NoSA], w.Cycles[counter.StageSeal], w.Packets[counter.StageSeal] = 12, 2, 900, 9
	w.Publish()
	g.stats.HardExpired = 4
	client, _ := g.serve(t)
	tier, _ := crypto.ChosenTier()
	suite := g.list()[0].sa().Suite
	got := scrape(t, client, "http://spigot"+PathMetrics)
	for line, want := range map[string]string{
		`spigot_rx_packets_total{core="1",worker="0"}`:                       "12",
		`spigot_drops_total{core="1",reason="no_sa",worker="0"}`:             "2",
		`spigot_drops_total{core="1",reason="runt",worker="0"}`:              "0",
		`spigot_stage_cycles_total{core="1",stage="seal",worker="0"}`:        "900",
		`spigot_stage_packets_total{core="1",stage="seal",worker="0"}`:       "9",
		`spigot_port_tx_errors_total{port="in0",queue="3",side="protected"}`: "6",
		fmt.Sprintf(`spigot_crypto_info{tier="%v"}`, tier):                   "1",
		fmt.Sprintf(`spigot_sas{direction="out",suite=%q}`, suite):           "1",
		fmt.Sprintf(`spigot_sas{direction="in",suite=%q}`, suite):            "1",
		`spigot_sas{direction="waiting",suite=""}`:                           "1",
		`spigot_policies{action="protect",direction="out"}`:                  "1",
		`spigot_sa_hard_expired_total`:                                       "4",
	} {
		if got[line] != want {
			t.Errorf("%s is %q, want %s", line, got[line], want)
		}
	}
	w.Rx++
	w.Publish()
	if again := scrape(t, client, "http://spigot"+PathMetrics)[`spigot_rx_packets_total{core="1",worker="0"}`]; again != "13" {
		t.Errorf("the second time, one packet later: %s", again)
	}
}

// An interface may have any bytes for a name; Prometheus takes UTF-8 only.
func TestMetricsOfAPortWithAnyName(t *testing.T) {
	g := newGateway(t, func(c *Config) { c.Ports[0].Name, c.Ports[0].Queues = "in\xff0", []pmd.Port{queue{}} })
	client, _ := g.serve(t)
	const line = `spigot_port_tx_errors_total{port="in�0",queue="3",side="protected"}`
	if got := scrape(t, client, "http://spigot"+PathMetrics); got[line] != "6" {
		t.Errorf("%s is %q, want 6", line, got[line])
	}
}

// Each counter of workers and queues is a metric, and no two share one.
func TestEveryCounterIsAMetric(t *testing.T) {
	holdFamilies(t, workerFamilies)
	holdFamilies(t, queueFamilies)
}

// holdFamilies sets one field of V after the other and wants it in one family.
func holdFamilies[V any](t *testing.T, families []family[V]) {
	t.Helper()
	typ := reflect.TypeFor[V]()
	for i := range typ.NumField() {
		if typ.Field(i).Type.Kind() != reflect.Uint64 {
			continue // an array has metrics of its own, by reason or stage
		}
		var v V
		reflect.ValueOf(&v).Elem().Field(i).SetUint(7)
		n := 0
		for _, f := range families {
			if f.get(&v) == 7 {
				n++
			}
		}
		if n != 1 {
			t.Errorf("%v.%s is in %d metrics", typ, typ.Field(i).Name, n)
		}
	}
}

// On TCP there are the metrics and nothing else.
func TestMetricsOnTCP(t *testing.T) {
	g := newGateway(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- g.ServeMetrics(ctx, ln) }()
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	if got := scrape(t, client, "http://"+ln.Addr().String()+PathMetrics); len(got) < int(counter.NumReasons) {
		t.Errorf("%d metrics", len(got))
	}
	resp, err := client.Get("http://" + ln.Addr().String() + PathSAs)
	if err != nil || resp.StatusCode != http.StatusNotFound {
		t.Errorf("the SAs on TCP: %v, %v", resp, err)
	}
	resp.Body.Close()
	client.CloseIdleConnections()
	stop()
	if err := <-done; err != nil {
		t.Errorf("ServeMetrics: %v", err)
	}
}
