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
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	if len(families) != declared+1 { // and build_info
		t.Fatalf("%d metrics are registered, %d declared", len(families), declared)
	}
	for _, f := range families {
		name := f.GetName()
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
