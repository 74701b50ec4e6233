package metrics_test

import (
	"reflect"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"tutti/appliance/metrics"
)

// units are the endings a metric that is not a counter may have: what one of it is.
var units = []string{
	"_seconds", "_bytes", "_units", "_info", "_height", "_view", "_epoch", "_left", "_seat", "_blocks", "_accounts", "_transactions", "_batches", "_signatures",
	"_peers", "_requests", "_subscribers", "_active",
}

// touch makes every labelled metric exist once and counts all of them.
func touch(v reflect.Value) (n int) {
	for i := range v.NumField() {
		f := v.Field(i)
		if f.Kind() == reflect.Struct {
			n += touch(f)
			continue
		}
		n++
		switch m := f.Interface().(type) {
		case *prometheus.CounterVec:
			m.WithLabelValues(blanks(m)...)
		case *prometheus.GaugeVec:
			m.WithLabelValues(blanks(m)...)
		case *prometheus.HistogramVec:
			m.WithLabelValues(blanks(m)...)
		}
	}
	return n
}

// blanks is a value for each label of c, counted from its description.
func blanks(c prometheus.Collector) []string {
	ch := make(chan *prometheus.Desc, 1)
	c.Describe(ch)
	_, list, _ := strings.Cut((<-ch).String(), "variableLabels: {")
	return strings.Split(strings.TrimRight(list, "}"), ",")
}

func TestNames(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	m, err := metrics.New(reg, "1.2.3", "abc")
	if err != nil {
		t.Fatal(err)
	}
	declared := touch(reflect.ValueOf(*m))
	if got := checkNames(t, reg); len(got) != declared+1 { // and build_info
		t.Fatalf("%d metrics are registered, %d declared", len(got), declared)
	}
}

// TestBroker: the same rules for a broker's, which are read anew at each scrape.
func TestBroker(t *testing.T) {
	reg, now := prometheus.NewPedanticRegistry(), metrics.Broker{Refused: map[string]uint64{"busy": 3, "nonce_too_low": 1}}
	if err := metrics.NewBroker(reg, "1.2.3", "abc", func() metrics.Broker { return now }); err != nil {
		t.Fatal(err)
	}
	now.Submitted, now.InWork = 70, 4
	got := checkNames(t, reg)
	if got["tutti_broker_submitted_total"] != 70 || got["tutti_broker_waiting_transactions"] != 4 || got["tutti_broker_refused_total"] != 4 || got["tutti_build_info"] != 1 || len(got) != 12 {
		t.Errorf("%v", got)
	}
	if metrics.NewBroker(reg, "1", "a", func() metrics.Broker { return now }) == nil {
		t.Error("a second set is registered under the same names")
	}
}

// checkNames holds metrics to the rules of names. The answer is the sum of each over its labels.
func checkNames(t *testing.T, reg prometheus.Gatherer) map[string]float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		name := f.GetName()
		got[name] = 0
		for _, m := range f.Metric {
			got[name] += m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
		part, _, ok := strings.Cut(strings.TrimPrefix(name, "tutti_"), "_")
		if !strings.HasPrefix(name, "tutti_") || !ok || part == "" {
			t.Errorf("%s: need tutti_<part>_<what>", name)
		}
		if len(f.GetHelp()) < 10 || !strings.HasSuffix(f.GetHelp(), ".") {
			t.Errorf("%s: help %q is no sentence", name, f.GetHelp())
		}
		if total := strings.HasSuffix(name, "_total"); total != (f.GetType().String() == "COUNTER") {
			t.Errorf("%s: is a %s: counters and only they end in _total", name, f.GetType())
		} else if !total && !endsInUnit(name) {
			t.Errorf("%s: does not end in a unit", name)
		}
	}
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	return got
}

func endsInUnit(name string) bool {
	for _, u := range units {
		if strings.HasSuffix(name, u) {
			return true
		}
	}
	return false
}

func TestTwice(t *testing.T) {
	reg := prometheus.NewRegistry()
	if _, err := metrics.New(reg, "1", "a"); err != nil {
		t.Fatal(err)
	}
	if _, err := metrics.New(reg, "1", "a"); err == nil {
		t.Error("a second set is registered under the same names")
	}
}
