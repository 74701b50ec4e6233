package endless

import (
	"fmt"
	"io"

	"tutti/bench/plot"
)

// Plot draws each size over the height. title says what was run.
func Plot(w io.Writer, title string, samples []Sample) error {
	d := plot.Drawing{Title: title, Axis: "block", Number: func(v float64) string { return fmt.Sprintf("%.1f MiB", mib(int64(v))) }}
	for i := range samples {
		d.X = append(d.X, float64(samples[i].Height))
	}
	for _, l := range lines {
		values := make([]float64, len(samples))
		for i := range samples {
			values[i] = float64(l.of(&samples[i]))
		}
		d.Panels = append(d.Panels, plot.Panel{Name: l.name, Lines: []plot.Line{{Values: values}}})
	}
	return d.Draw(w)
}
